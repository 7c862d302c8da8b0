//! `plugin!`: generates the statics that a host looks up in a plugin.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Ident, LitInt, Path, Token, bracketed,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    spanned::Spanned,
};

use crate::{
    forgotten,
    options::{error_at, unknown},
};

/// The symbol of a library's root module in abi_stable.
const ROOT_MODULE_SYMBOL: &str = "_1as_0lib_1header_0root_bmodule_bloader";

const FIELDS: [&str; 4] = ["state", "teardown", "tasks", "worker_threads"];

struct Plugin {
    tasks: Vec<Path>,
    state: Option<Path>,
    teardown: Option<Path>,
    worker_threads: usize,
}

pub(crate) fn expand(input: TokenStream) -> TokenStream {
    let plugin = match syn::parse2::<Plugin>(input) {
        Ok(plugin) => plugin,
        Err(error) => return error.into_compile_error(),
    };
    if let Some(errors) = forgotten::errors(&plugin.tasks) {
        return errors.into_compile_error();
    }
    let statics = plugin.statics(&quote!(#[unsafe(export_name = "TASKBAY_PLUGIN")]));
    quote! {
        #[cfg(panic = "abort")]
        ::core::compile_error!(
            "a plugin cannot be built with `panic = \"abort\"`, because a panic of one job would end all the others: \
             remove that line from the profile in Cargo.toml"
        );

        const _: () = {
            #statics

            #[unsafe(export_name = #ROOT_MODULE_SYMBOL)]
            static ROOT_MODULE: ::taskbay_plugin::private::LibHeader =
                ::taskbay_plugin::private::root_module::<Plugin>();
        };
    }
}

pub(crate) fn expand_header(input: TokenStream) -> TokenStream {
    match syn::parse2::<Plugin>(input) {
        Ok(plugin) => {
            let statics = plugin.statics(&TokenStream::new());
            quote!({ #statics &HEADER })
        }
        Err(error) => error.into_compile_error(),
    }
}

impl Plugin {
    fn statics(&self, export: &TokenStream) -> TokenStream {
        let Self { tasks, worker_threads, .. } = self;
        let count = tasks.len();
        let checks = self.checks();
        let (build, build_fn) = self.build();
        quote! {
            struct Plugin;

            static TASKS: [::taskbay_plugin::private::TaskDef; #count] =
                [#(::taskbay_plugin::private::task_def::<#tasks>()),*];

            static DISPATCHER: ::taskbay_plugin::private::Dispatcher = ::taskbay_plugin::private::Dispatcher::new(
                ::taskbay_plugin::private::Definition {
                    name: ::core::env!("CARGO_PKG_NAME"),
                    tasks: &[#(<#tasks as ::taskbay_plugin::private::Task>::NAME),*],
                    runs: &[#(<#tasks as ::taskbay_plugin::private::Task>::run),*],
                    build: #build,
                    worker_threads: #worker_threads,
                },
            );

            impl ::taskbay_plugin::private::Exported for Plugin {
                fn dispatcher() -> &'static ::taskbay_plugin::private::Dispatcher {
                    &DISPATCHER
                }

                fn header() -> &'static ::taskbay_plugin::private::Header {
                    &HEADER
                }
            }

            #export
            static HEADER: ::taskbay_plugin::private::Header = ::taskbay_plugin::private::header::<Plugin>(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
                ::core::cfg!(debug_assertions),
                &TASKS,
            );

            #build_fn

            #checks
        }
    }

    /// Errors about a task point at that task.
    fn checks(&self) -> TokenStream {
        let mut checks = TokenStream::new();
        for (i, task) in self.tasks.iter().enumerate() {
            for earlier in &self.tasks[..i] {
                let message = format!(
                    "the tasks `{}` and `{}` have the same name: give one of them another by `#[task(name = \"…\")]`",
                    written(earlier),
                    written(task)
                );
                checks.extend(quote_spanned! {task.span()=>
                    const _: () = ::core::assert!(
                        !::taskbay_plugin::private::same_name::<#earlier, #task>(),
                        #message,
                    );
                });
            }
            if self.state.is_none() {
                checks.extend(quote_spanned! {task.span()=>
                    const _: () = ::taskbay_plugin::private::fits::<#task, ()>();
                });
            }
        }
        checks
    }

    /// The function that creates the state and its teardown; both are in one function, because only there the type of the
    /// state is known.
    fn build(&self) -> (TokenStream, TokenStream) {
        let Some(state) = &self.state else {
            return (quote!(::taskbay_plugin::private::no_state), TokenStream::new());
        };
        let tasks = &self.tasks;
        let fits = tasks
            .iter()
            .map(|task| quote_spanned!(task.span()=> ::taskbay_plugin::private::StateOf(&state).fits::<#task>();));
        let built = quote_spanned!(state.span()=> ::taskbay_plugin::private::Returned(#state(&setup)).state().await?);
        let teardown = match &self.teardown {
            Some(teardown) => quote_spanned! {teardown.span()=>
                ::taskbay_plugin::private::TornDown(#teardown(&ending)).result().await
            },
            None => quote!(::core::result::Result::Ok(())),
        };
        let function = quote! {
            fn build(
                setup: ::taskbay_plugin::Setup,
            ) -> ::taskbay_plugin::private::LocalFuture<
                ::core::result::Result<::taskbay_plugin::private::Built, ::taskbay_plugin::TaskError>,
            > {
                #[allow(unused_imports)]
                use ::taskbay_plugin::private::{ReturnedLater as _, TornDownLater as _};
                ::std::boxed::Box::pin(async move {
                    let state = #built;
                    #(#fits)*
                    let state = ::std::sync::Arc::new(state);
                    let ending = ::std::sync::Arc::clone(&state);
                    let teardown = move || -> ::taskbay_plugin::private::LocalFuture<
                        ::core::result::Result<(), ::taskbay_plugin::TaskError>,
                    > {
                        ::std::boxed::Box::pin(async move {
                            let result = #teardown;
                            ::core::mem::drop(ending);
                            result
                        })
                    };
                    ::core::result::Result::Ok(::taskbay_plugin::private::Built {
                        state,
                        teardown: ::std::boxed::Box::new(teardown),
                    })
                })
            }
        };
        (quote!(build), function)
    }
}

impl Parse for Plugin {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let long = input.peek(Ident) && input.peek2(Token![:]) && !input.peek2(Token![::]);
        let plugin = if long {
            fields(input)?
        } else {
            let tasks = Punctuated::<Path, Token![,]>::parse_terminated(input)?;
            Self { tasks: tasks.into_iter().collect(), state: None, teardown: None, worker_threads: 1 }
        };
        if plugin.tasks.is_empty() {
            return Err(syn::Error::new(Span::call_site(), "a plugin offers at least one task: plugin!(send_email)"));
        }
        for (i, task) in plugin.tasks.iter().enumerate() {
            if plugin.tasks[..i].contains(task) {
                return Err(error_at(task, format!("the task `{}` is listed twice", written(task))));
            }
        }
        if let (Some(teardown), None) = (&plugin.teardown, &plugin.state) {
            return Err(error_at(teardown, "there is nothing to tear down without `state`"));
        }
        Ok(plugin)
    }
}

/// A path in its usual spelling.
fn written(path: &Path) -> String {
    let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    segments.join("::")
}

fn fields(input: ParseStream<'_>) -> syn::Result<Plugin> {
    let mut plugin = Plugin { tasks: Vec::new(), state: None, teardown: None, worker_threads: 1 };
    let mut seen = Vec::new();
    while !input.is_empty() {
        let field: Ident = input.parse()?;
        if seen.contains(&field) {
            return Err(syn::Error::new(field.span(), format!("`{field}` is given twice")));
        }
        if !FIELDS.iter().any(|name| field == name) {
            return Err(unknown("field", &field, &FIELDS));
        }
        input.parse::<Token![:]>()?;
        if field == "tasks" {
            let tasks;
            bracketed!(tasks in input);
            plugin.tasks = Punctuated::<Path, Token![,]>::parse_terminated(&tasks)?.into_iter().collect();
        } else if field == "state" {
            plugin.state = Some(input.parse()?);
        } else if field == "teardown" {
            plugin.teardown = Some(input.parse()?);
        } else {
            plugin.worker_threads = worker_threads(input)?;
        }
        seen.push(field);
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(plugin)
}

fn worker_threads(input: ParseStream<'_>) -> syn::Result<usize> {
    let wrong = "write the threads as a number from 1: worker_threads: 2";
    let literal: LitInt = input.parse().map_err(|error| syn::Error::new(error.span(), wrong))?;
    match literal.base10_parse::<usize>() {
        Ok(threads) if threads > 0 => Ok(threads),
        _ => Err(syn::Error::new(literal.span(), wrong)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(input: &str, message: &str) {
        let code = expand(input.parse().expect("tokens")).to_string();
        assert!(code.contains("compile_error") && code.contains(message), "{message:?} is not in {code}");
    }

    #[test]
    fn what_makes_no_plugin_is_refused_with_the_reason() {
        refused("", "at least one task");
        refused("tasks: []", "at least one task");
        refused("task: [a]", "there is no field `task`: did you mean `tasks`?");
        refused("tasks: [a], tasks: [b]", "`tasks` is given twice");
        refused("a, mail::a, a", "the task `a` is listed twice");
        refused("tasks: [mail::a, mail::a]", "the task `mail::a` is listed twice");
        refused("tasks: [a], teardown: close", "nothing to tear down without `state`");
        refused("tasks: [a], worker_threads: 0", "worker_threads: 2");
        refused("tasks: [a], worker_threads: \"two\"", "worker_threads: 2");
    }
}
