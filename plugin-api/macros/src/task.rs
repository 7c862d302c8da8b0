//! `#[task]`: keeps the function, and generates a type of the same name by which `plugin!` refers to it.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Attribute, Expr, ExprLit, FnArg, GenericArgument, ItemFn, Lit, Meta, PathArguments, ReturnType, Signature, Type,
    ext::IdentExt, spanned::Spanned,
};

use crate::options::{self, Options, error_at};

pub(crate) fn expand(options: TokenStream, item: &TokenStream) -> TokenStream {
    match syn::parse2::<ItemFn>(item.clone()) {
        // The function is kept even after an error, to avoid more errors at its uses.
        Ok(function) => {
            let made = syn::parse2(options).and_then(|options| task(&options, &function));
            let made = made.unwrap_or_else(|error| error.into_compile_error());
            // A task owns its arguments, whether or not it consumes them, and may be async without an `.await`.
            quote! {
                #[allow(clippy::needless_pass_by_value, clippy::unused_async)]
                #function
                #made
            }
        }
        Err(_) => {
            let error = error_at(item, "`#[task]` goes on a function: `async fn` or `fn`").into_compile_error();
            quote! { #item #error }
        }
    }
}

/// The parameters of the function.
#[derive(Default)]
struct Parameters<'a> {
    context: Option<Context<'a>>,
    payload: Option<&'a Type>,
}

enum Context<'a> {
    Stateless,
    State(&'a Type),
}

fn task(options: &Options, function: &ItemFn) -> syn::Result<TokenStream> {
    check_signature(&function.sig)?;
    let parameters = parameters(&function.sig)?;
    let ident = &function.sig.ident;
    let plain_name = ident.unraw().to_string();
    let name = if let Some(name) = &options.name {
        name.value()
    } else {
        options::check_name(&plain_name, ident.span())?;
        plain_name
    };
    let vis = &function.vis;
    let description = match description(&function.attrs) {
        Some(text) => quote!(::core::option::Option::Some(#text)),
        None => quote!(::core::option::Option::None),
    };
    let timeout_ms = options.timeout_ms.unwrap_or(0);
    let max_attempts = options.max_attempts.unwrap_or(0);
    let schedules = if options.schedules.is_empty() {
        quote!(::core::option::Option::None)
    } else {
        let lines = options.schedules.join("\n");
        quote!(::core::option::Option::Some(#lines))
    };
    let run = run(&function.sig, &parameters);
    let fits = match &parameters.context {
        Some(Context::State(state)) => quote! {
            impl ::taskbay_plugin::private::Fits<#state> for #ident {}
        },
        _ => quote! {
            impl<__State> ::taskbay_plugin::private::Fits<__State> for #ident {}
        },
    };
    Ok(quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types, dead_code, missing_debug_implementations)]
        #vis struct #ident {}

        impl ::taskbay_plugin::private::Task for #ident {
            const NAME: &'static str = #name;
            const DESCRIPTION: ::core::option::Option<&'static str> = #description;
            const TIMEOUT_MS: u64 = #timeout_ms;
            const MAX_ATTEMPTS: u32 = #max_attempts;
            const SCHEDULES: ::core::option::Option<&'static str> = #schedules;
            #[allow(clippy::let_unit_value)]
            fn run(__job: ::taskbay_plugin::private::JobCall) -> ::taskbay_plugin::private::Work {
                #run
            }
        }

        #fits
    })
}

fn run(signature: &Signature, parameters: &Parameters<'_>) -> TokenStream {
    let ident = &signature.ident;
    let mut arguments = Vec::new();
    let mut reads = TokenStream::new();
    match &parameters.context {
        Some(Context::Stateless) => arguments.push(quote!(__job.context())),
        Some(Context::State(state)) => {
            arguments.push(quote_spanned!(state.span()=> __job.context_with::<#state>()?));
        }
        None => {}
    }
    if let Some(payload) = parameters.payload {
        // A separate statement makes the compiler point at a payload type that does not implement `Deserialize`.
        reads.extend(quote_spanned!(payload.span()=> let __payload = __job.payload::<#payload>()?;));
        arguments.push(quote!(__payload));
    }
    let output = match &signature.output {
        ReturnType::Default => ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    if signature.asyncness.is_some() {
        quote_spanned! {output=>
            ::taskbay_plugin::private::Work::from_async(async move {
                #reads
                let __result = #ident(#(#arguments),*).await;
                ::taskbay_plugin::private::TaskReturn::into_result(__result)
            })
        }
    } else {
        quote_spanned! {output=>
            ::taskbay_plugin::private::Work::from_plain(move || {
                #reads
                let __result = #ident(#(#arguments),*);
                ::taskbay_plugin::private::TaskReturn::into_result(__result)
            })
        }
    }
}

fn check_signature(signature: &Signature) -> syn::Result<()> {
    if let Some(receiver) = signature.receiver() {
        return Err(error_at(receiver, "a task is a free function: it cannot take `self`"));
    }
    if let Some(generic) = signature.generics.params.first() {
        let message = "a task cannot be generic: a job's payload is of one type";
        return Err(error_at(generic, message));
    }
    if let Some(unsafety) = &signature.unsafety {
        return Err(error_at(unsafety, "a task cannot be `unsafe`: the host would have no reason to call it"));
    }
    if let Some(constness) = &signature.constness {
        return Err(error_at(constness, "a task cannot be `const`"));
    }
    if let Some(abi) = &signature.abi {
        return Err(error_at(abi, "a task is an ordinary Rust function: leave the `extern` out"));
    }
    if let Some(variadic) = &signature.variadic {
        return Err(error_at(variadic, "a task takes a context and a payload, and nothing else"));
    }
    Ok(())
}

fn parameters(signature: &Signature) -> syn::Result<Parameters<'_>> {
    let mut parameters = Parameters::default();
    for input in &signature.inputs {
        let FnArg::Typed(input) = input else { continue };
        check_type(&input.ty)?;
        if let Some(context) = as_context(&input.ty)? {
            if parameters.context.is_some() {
                return Err(error_at(&input.ty, "a task takes only one context"));
            }
            if parameters.payload.is_some() {
                return Err(error_at(&input.ty, "the context comes before the payload"));
            }
            parameters.context = Some(context);
        } else if parameters.payload.is_some() {
            let message = "a task takes only one payload: put its fields into a struct that derives `Deserialize`";
            return Err(error_at(&input.ty, message));
        } else {
            parameters.payload = Some(&input.ty);
        }
    }
    Ok(parameters)
}

fn check_type(ty: &Type) -> syn::Result<()> {
    match ty {
        Type::Reference(reference) if matches!(as_context(&reference.elem), Ok(Some(_))) => {
            Err(error_at(ty, "take the context by value, without `&`: it is cheap to clone"))
        }
        Type::Reference(_) => {
            Err(error_at(ty, "a payload is owned, because it outlives the call: take for example `String` for `&str`"))
        }
        Type::ImplTrait(_) => Err(error_at(ty, "a payload is of one type: name it instead of writing `impl`")),
        _ => Ok(()),
    }
}

/// The context, if the parameter's type is spelled `Context` or `Context<…>`.
fn as_context(ty: &Type) -> syn::Result<Option<Context<'_>>> {
    let Type::Path(path) = ty else { return Ok(None) };
    let Some(last) = path.path.segments.last() else { return Ok(None) };
    if last.ident != "Context" {
        return Ok(None);
    }
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return Ok(Some(Context::Stateless)) };
    match (arguments.args.first(), arguments.args.len()) {
        (Some(GenericArgument::Type(state)), 1) => Ok(Some(Context::State(state))),
        _ => Err(error_at(ty, "write `Context`, or `Context<State>` with the type of the plugin's state")),
    }
}

/// The first non-empty line of the documentation.
fn description(attributes: &[Attribute]) -> Option<String> {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(doc) if doc.path.is_ident("doc") => match &doc.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    lines
        .flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
        .find(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(options: &str, item: &str) -> String {
        expand(options.parse().expect("tokens"), &item.parse().expect("tokens")).to_string()
    }

    #[track_caller]
    fn refused(item: &str, message: &str) {
        let code = expanded("", item);
        assert!(code.contains("compile_error") && code.contains(message), "{message:?} is not in {code}");
    }

    #[test]
    fn signatures_that_cannot_be_tasks_are_refused_with_the_reason() {
        refused("fn a(self) {}", "cannot take `self`");
        refused("async fn a<T>(payload: T) {}", "cannot be generic");
        refused("unsafe fn a() {}", "cannot be `unsafe`");
        refused("const fn a() {}", "cannot be `const`");
        refused("extern \"C\" fn a() {}", "leave the `extern` out");
        refused("fn a(a: A, b: B) {}", "only one payload");
        refused("fn a(a: A, ctx: Context) {}", "the context comes before the payload");
        refused("fn a(x: Context, y: Context<S>) {}", "only one context");
        refused("fn a(ctx: Context<A, B>) {}", "write `Context`, or `Context<State>`");
        refused("fn a(ctx: &Context) {}", "by value");
        refused("fn a(name: &str) {}", "a payload is owned");
        refused("fn a(payload: impl Send) {}", "instead of writing `impl`");
        refused("struct A;", "`#[task]` goes on a function");
        refused(&format!("fn {}() {{}}", "x".repeat(129)), "at most 128 characters");
    }

    #[test]
    fn the_function_stays_even_if_its_options_are_wrong() {
        let code = expanded("timeot = \"3s\"", "async fn send() {}");
        assert!(code.contains("async fn send ()") && code.contains("did you mean `timeout`?"), "{code}");
    }

    #[test]
    fn the_first_line_of_the_documentation_describes_the_task() {
        let code = expanded("", "///\n/// Sends one e-mail. \n/// And more.\nfn send() {}");
        assert!(code.contains("Some (\"Sends one e-mail.\")"), "{code}");
    }
}
