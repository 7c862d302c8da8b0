//! `Deserialize` and `Serialize` for crates without serde among their dependencies.
//!
//! serde's derive takes another path for serde only from an attribute of the item, and a derive cannot add attributes to its
//! item. Therefore this derive generates a copy of the item under another name, derives serde's trait for it as a "remote"
//! type, and implements the trait for the original through the copy.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{
    Attribute, Data, DeriveInput, Field, Fields, GenericParam, Generics, Meta, Token, Visibility, parse_quote,
    punctuated::Punctuated,
};

use crate::options::error_at;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

pub(crate) fn expand(item: TokenStream, direction: Direction) -> TokenStream {
    syn::parse2(item).and_then(|item| derive(&item, direction)).unwrap_or_else(|error| error.into_compile_error())
}

fn derive(item: &DeriveInput, direction: Direction) -> syn::Result<TokenStream> {
    if let Some(remote) = serde_options(&item.attrs).find(|option| option.path().is_ident("remote")) {
        let message = "for a remote type, add serde to the dependencies and use its own derive";
        return Err(error_at(&remote, message));
    }
    let ident = &item.ident;
    let original = ident.to_string();
    let copy_ident = format_ident!("__{}", ident);
    let copy = copy(with_self_spelled_out(item)?, &copy_ident);
    let (derive, implementation) = match direction {
        Direction::Read => (quote!(::taskbay_plugin::serde::Deserialize), reading(item, &copy_ident)),
        Direction::Write => (quote!(::taskbay_plugin::serde::Serialize), writing(item, &copy_ident)),
    };
    Ok(quote! {
        #[doc(hidden)]
        const _: () = {
            #[derive(#derive)]
            #[serde(crate = "::taskbay_plugin::serde", remote = #original)]
            #[allow(dead_code, missing_docs, missing_debug_implementations, clippy::all)]
            #copy

            #implementation
        };
    })
}

/// Makes `Self` in the types of the copy's fields refer to the original.
fn with_self_spelled_out(item: &DeriveInput) -> syn::Result<DeriveInput> {
    let ident = &item.ident;
    let (_, arguments, _) = item.generics.split_for_impl();
    let mut item = item.clone();
    let fields: Vec<&mut Field> = match &mut item.data {
        Data::Struct(data) => data.fields.iter_mut().collect(),
        Data::Enum(data) => data.variants.iter_mut().flat_map(|variant| &mut variant.fields).collect(),
        Data::Union(_) => Vec::new(),
    };
    for field in fields {
        field.ty = syn::parse2(replace_self(field.ty.to_token_stream(), &quote!(#ident #arguments)))?;
    }
    Ok(item)
}

fn replace_self(tokens: TokenStream, original: &TokenStream) -> TokenStream {
    let replaced = tokens.into_iter().map(|token| match token {
        TokenTree::Ident(ident) if ident == "Self" => original.clone(),
        TokenTree::Group(group) => {
            let inner = replace_self(group.stream(), original);
            let mut replaced = Group::new(group.delimiter(), inner);
            replaced.set_span(group.span());
            TokenTree::Group(replaced).into()
        }
        token => token.into(),
    });
    replaced.collect()
}

/// The item with serde's attributes only.
fn copy(mut item: DeriveInput, ident: &syn::Ident) -> DeriveInput {
    let renamed = serde_options(&item.attrs).any(|option| option.path().is_ident("rename"));
    keep_serde(&mut item.attrs);
    item.attrs = item.attrs.iter().map(with_default_of_original).collect();
    if !renamed {
        // Error messages and formats such as XML use this name.
        let name = item.ident.to_string();
        let name = name.strip_prefix("r#").unwrap_or(&name);
        item.attrs.push(parse_quote!(#[serde(rename = #name)]));
    }
    item.ident = ident.clone();
    item.vis = Visibility::Inherited;
    match &mut item.data {
        Data::Struct(data) => keep_in_fields(&mut data.fields),
        Data::Union(data) => data.fields.named.iter_mut().for_each(|field| keep_serde(&mut field.attrs)),
        Data::Enum(data) => {
            for variant in &mut data.variants {
                keep_serde(&mut variant.attrs);
                keep_in_fields(&mut variant.fields);
            }
        }
    }
    item
}

/// Redirects `default` on the whole item to the original's default, because the copy has none.
fn with_default_of_original(attribute: &Attribute) -> Attribute {
    let options = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    let Ok(options) = options else { return attribute.clone() };
    let options = options.into_iter().map(|option| match option {
        Meta::Path(path) if path.is_ident("default") => quote!(default = "__default"),
        option => option.to_token_stream(),
    });
    parse_quote!(#[serde(#(#options),*)])
}

fn keep_in_fields(fields: &mut Fields) {
    fields.iter_mut().for_each(|field| keep_serde(&mut field.attrs));
}

fn keep_serde(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| attribute.path().is_ident("serde"));
}

fn serde_options(attributes: &[Attribute]) -> impl Iterator<Item = Meta> {
    let lists = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
    let parsed = lists.filter_map(|list| list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok());
    parsed.flatten()
}

fn reading(item: &DeriveInput, copy: &syn::Ident) -> TokenStream {
    let ident = &item.ident;
    let (plain_parameters, arguments, wheres) = item.generics.split_for_impl();
    let has_default =
        serde_options(&item.attrs).any(|option| matches!(option, Meta::Path(path) if path.is_ident("default")));
    let default = has_default.then(|| {
        quote! {
            fn __default #plain_parameters () -> #ident #arguments #wheres {
                <#ident #arguments as ::core::default::Default>::default()
            }
        }
    });
    let mut generics = bounded(&item.generics, &quote!(::taskbay_plugin::serde::de::Deserialize<'de>));
    let borrowed: Vec<_> = item.generics.lifetimes().map(|lifetime| lifetime.lifetime.clone()).collect();
    let de = if borrowed.is_empty() { parse_quote!('de) } else { parse_quote!('de: #(#borrowed)+*) };
    generics.params.insert(0, de);
    let (parameters, _, _) = generics.split_for_impl();
    quote! {
        #default

        #[automatically_derived]
        impl #parameters ::taskbay_plugin::serde::de::Deserialize<'de> for #ident #arguments #wheres {
            fn deserialize<__D>(deserializer: __D) -> ::core::result::Result<Self, __D::Error>
            where
                __D: ::taskbay_plugin::serde::de::Deserializer<'de>,
            {
                #copy::deserialize(deserializer)
            }
        }
    }
}

fn writing(item: &DeriveInput, copy: &syn::Ident) -> TokenStream {
    let ident = &item.ident;
    let (_, arguments, wheres) = item.generics.split_for_impl();
    let turbofish = arguments.as_turbofish().to_token_stream();
    let generics = bounded(&item.generics, &quote!(::taskbay_plugin::serde::ser::Serialize));
    let (parameters, _, _) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #parameters ::taskbay_plugin::serde::ser::Serialize for #ident #arguments #wheres {
            fn serialize<__S>(&self, serializer: __S) -> ::core::result::Result<__S::Ok, __S::Error>
            where
                __S: ::taskbay_plugin::serde::ser::Serializer,
            {
                #copy #turbofish::serialize(self, serializer)
            }
        }
    }
}

fn bounded(generics: &Generics, bound: &TokenStream) -> Generics {
    let mut generics = generics.clone();
    for parameter in &mut generics.params {
        if let GenericParam::Type(parameter) = parameter {
            parameter.bounds.push(parse_quote!(#bound));
        }
    }
    generics
}
