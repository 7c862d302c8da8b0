//! `#[task]`: the function stays as it is, and a type of the same name beside it describes it to `plugin!`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Expr, ExprLit, FnArg, GenericArgument, ItemFn, Lit, LitInt, LitStr, Meta, PathArguments, Result, Token, Type,
    parse::Parser, punctuated::Punctuated, spanned::Spanned,
};

use crate::duration;

const OPTIONS: &str = "the options of a task are `name = \"…\"`, `timeout = \"30s\"` and `max_attempts = 5`";
const SIGNATURE: &str = "a task takes nothing, a payload, a `Context`, or a `Context` and a payload, in this order";
const LONGEST_NAME: usize = 128;

/// What stands in the parentheses of `#[task(…)]`.
#[derive(Default)]
struct Options {
    name: Option<LitStr>,
    timeout_ms: u64,
    max_attempts: u32,
}

/// What the function wants of its call.
struct Parameters {
    /// The type in `Context<…>`, where there is a context.
    context: Option<Type>,
    payload: Option<Type>,
}

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let function: ItemFn = syn::parse2(item).map_err(|error| syn::Error::new(error.span(), "a task is a function"))?;
    let options = Options::parse(options)?;
    let parameters = Parameters::of(&function)?;
    let (ident, visibility) = (&function.sig.ident, &function.vis);
    let name = options.name.map_or_else(|| unraw(ident), |name| name.value());
    let description = first_line_of_docs(&function);
    let (timeout_ms, max_attempts) = (options.timeout_ms, options.max_attempts);

    let needs = match &parameters.context {
        Some(state) if !is_unit(state) => quote!(impl ::taskbay_plugin::private::Needs<#state> for #ident {}),
        _ => quote!(impl<S> ::taskbay_plugin::private::Needs<S> for #ident {}),
    };
    let context = parameters.context.iter().map(|state| quote!(call.context::<#state>()));
    let payload = parameters.payload.iter().map(|payload| quote_spanned!(payload.span()=> call.payload::<#payload>()?));
    let arguments = context.chain(payload);
    let run = if function.sig.asyncness.is_some() {
        quote!(::taskbay_plugin::private::Run::future(async move {
            ::taskbay_plugin::private::IntoTaskResult::into_task_result(#ident(#(#arguments),*).await)
        }))
    } else {
        quote!(::taskbay_plugin::private::Run::blocking(move || {
            ::taskbay_plugin::private::IntoTaskResult::into_task_result(#ident(#(#arguments),*))
        }))
    };

    Ok(quote! {
        #function

        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #visibility struct #ident {}

        #needs

        impl ::taskbay_plugin::private::Task for #ident {
            const NAME: &'static str = #name;
            const DEF: ::taskbay_plugin::private::TaskDef =
                ::taskbay_plugin::private::task_def(#name, #description, #timeout_ms, #max_attempts);

            fn run(call: ::taskbay_plugin::private::Call) -> ::taskbay_plugin::private::Run {
                #run
            }
        }
    })
}

impl Options {
    fn parse(tokens: TokenStream) -> Result<Self> {
        let mut options = Self::default();
        let mut seen = Vec::new();
        for meta in Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens)? {
            let key = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
            if seen.contains(&key) {
                return Err(syn::Error::new(meta.span(), format!("`{key}` is given twice")));
            }
            let Meta::NameValue(pair) = &meta else { return Err(syn::Error::new(meta.span(), OPTIONS)) };
            match key.as_str() {
                "name" => options.name = Some(valid_name(string(&pair.value)?)?),
                "timeout" => {
                    let text = string(&pair.value)?;
                    options.timeout_ms =
                        duration::milliseconds(&text.value()).map_err(|wrong| syn::Error::new(text.span(), wrong))?;
                }
                "max_attempts" => options.max_attempts = attempts(&pair.value)?,
                _ => return Err(syn::Error::new(pair.path.span(), format!("unknown option `{key}`: {OPTIONS}"))),
            }
            seen.push(key);
        }
        Ok(options)
    }
}

impl Parameters {
    fn of(function: &ItemFn) -> Result<Self> {
        let signature = &function.sig;
        if !signature.generics.params.is_empty() {
            return Err(syn::Error::new(signature.generics.span(), "a task cannot be generic: jobs name no types"));
        }
        if let Some(token) = &signature.unsafety {
            return Err(syn::Error::new(token.span(), "a task cannot be unsafe: jobs promise nothing"));
        }
        let mut types = Vec::new();
        for input in &signature.inputs {
            match input {
                FnArg::Receiver(this) => {
                    return Err(syn::Error::new(this.span(), format!("a task is a free function: {SIGNATURE}")));
                }
                FnArg::Typed(typed) => types.push((*typed.ty).clone()),
            }
        }
        let mut types = types.into_iter().peekable();
        let context = types.peek().and_then(context_state);
        if context.is_some() {
            types.next();
        }
        let payload = types.next();
        if let Some(payload) = &payload {
            if context_state(payload).is_some() {
                return Err(syn::Error::new(payload.span(), SIGNATURE));
            }
            if let Type::Reference(reference) = payload {
                return Err(syn::Error::new(
                    reference.span(),
                    "a task owns what it is given: take the context or payload by value",
                ));
            }
        }
        match types.next() {
            Some(more) => Err(syn::Error::new(more.span(), SIGNATURE)),
            None => Ok(Self { context, payload }),
        }
    }
}

/// The `S` of `Context<S>`, `()` for a plain `Context`, `None` for another type.
fn context_state(ty: &Type) -> Option<Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Context")?;
    match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::Type(state) => Some(state.clone()),
            _ => None,
        }),
        _ => Some(syn::parse_quote!(())),
    }
}

fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

fn string(value: &Expr) -> Result<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.clone()),
        other => Err(syn::Error::new(other.span(), format!("expected a string: {OPTIONS}"))),
    }
}

fn attempts(value: &Expr) -> Result<u32> {
    let Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) = value else {
        return Err(syn::Error::new(value.span(), format!("expected a number: {OPTIONS}")));
    };
    match LitInt::base10_parse::<u32>(number) {
        Ok(attempts @ 1..=32_767) => Ok(attempts),
        _ => Err(syn::Error::new(number.span(), "a job has between 1 and 32767 attempts")),
    }
}

fn valid_name(name: LitStr) -> Result<LitStr> {
    let text = name.value();
    let wrong = if text.is_empty() {
        "a task's name cannot be empty".to_owned()
    } else if text.chars().count() > LONGEST_NAME {
        format!("a task's name has at most {LONGEST_NAME} characters")
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "a task's name has no spaces or control characters".to_owned()
    } else {
        return Ok(name);
    };
    Err(syn::Error::new(name.span(), wrong))
}

fn unraw(ident: &proc_macro2::Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").unwrap_or(&name).to_owned()
}

fn first_line_of_docs(function: &ItemFn) -> LitStr {
    let line = function.attrs.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => string(&pair.value).ok(),
        _ => None,
    });
    let text = line.map(|line| line.value().trim().to_owned()).unwrap_or_default();
    LitStr::new(&text, Span::call_site())
}
