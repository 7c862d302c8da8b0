//! `plugin!`: the exported header, the entry points, and the checks that need all tasks at once.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Expr, Ident, LitInt, Path, Result, Token, bracketed,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    spanned::Spanned,
};

const FORMS: &str = "write `plugin!(task_a, task_b)` or `plugin! { tasks: [task_a, task_b], state: connect, teardown: close, \
                     worker_threads: 2 }`, of which only `tasks` is required";

/// What was written in `plugin!`.
#[derive(Default)]
struct Plugin {
    tasks: Vec<Path>,
    state: Option<Expr>,
    teardown: Option<Expr>,
    worker_threads: Option<usize>,
}

impl Parse for Plugin {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.is_empty() {
            return Err(input.error(format!("a plugin has at least one task: {FORMS}")));
        }
        let mut plugin = Self::default();
        let has_keys = input.peek(Ident) && input.peek2(Token![:]) && !input.peek2(Token![::]);
        if has_keys {
            while !input.is_empty() {
                plugin.parse_key(input)?;
                if input.is_empty() {
                    break;
                }
                input.parse::<Token![,]>()?;
            }
        } else {
            plugin.tasks = Punctuated::<Path, Token![,]>::parse_terminated(input)?.into_iter().collect();
        }
        if plugin.tasks.is_empty() {
            return Err(input.error(format!("a plugin has at least one task: {FORMS}")));
        }
        if let (Some(teardown), None) = (&plugin.teardown, &plugin.state) {
            return Err(syn::Error::new(teardown.span(), "there is no `state` to tear down"));
        }
        Ok(plugin)
    }
}

impl Plugin {
    fn parse_key(&mut self, input: ParseStream<'_>) -> Result<()> {
        let key: Ident = input.parse()?;
        input.parse::<Token![:]>()?;
        let again = match key.to_string().as_str() {
            "tasks" => {
                let list;
                bracketed!(list in input);
                let before = std::mem::take(&mut self.tasks);
                self.tasks = Punctuated::<Path, Token![,]>::parse_terminated(&list)?.into_iter().collect();
                !before.is_empty()
            }
            "state" => self.state.replace(input.parse()?).is_some(),
            "teardown" => self.teardown.replace(input.parse()?).is_some(),
            "worker_threads" => {
                let number: LitInt = input.parse()?;
                let threads = number.base10_parse().ok().filter(|threads| (1..=1024).contains(threads));
                let threads = threads.ok_or_else(|| syn::Error::new(number.span(), "between 1 and 1024 threads"))?;
                self.worker_threads.replace(threads).is_some()
            }
            other => return Err(syn::Error::new(key.span(), format!("unknown key `{other}`: {FORMS}"))),
        };
        if again { Err(syn::Error::new(key.span(), format!("`{key}` is given twice"))) } else { Ok(()) }
    }
}

pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let plugin: Plugin = syn::parse2(input)?;
    let tasks = &plugin.tasks;
    let count = tasks.len();
    let index = (0..count).map(|index| u32::try_from(index).expect("fewer tasks than u32 counts"));
    let worker_threads = plugin.worker_threads.unwrap_or(1);
    let state = match &plugin.state {
        Some(state) => quote!(::taskbay_plugin::private::build_state(#state, setup)),
        None => quote!(::taskbay_plugin::private::no_state(setup)),
    };
    let teardown = match &plugin.teardown {
        Some(teardown) => {
            quote!(::core::option::Option::Some(|state| ::taskbay_plugin::private::tear_down(#teardown, state)))
        }
        None => quote!(::core::option::Option::None),
    };
    let needs = match &plugin.state {
        Some(state) => quote! {
            fn state_of<F, A, S>(_: F) -> ::core::marker::PhantomData<S>
            where
                F: ::taskbay_plugin::private::StateBuilder<A, State = S>,
            {
                ::core::marker::PhantomData
            }
            let state = state_of(#state);
            #(::taskbay_plugin::private::check_needs::<#tasks, _>(state);)*
        },
        None => quote!(#(::taskbay_plugin::private::check_needs::<#tasks, ()>(::core::marker::PhantomData);)*),
    };
    let symbol = Ident::new(abi_stable_symbol(), proc_macro2::Span::call_site());

    Ok(quote! {
        #[cfg(panic = "abort")]
        ::core::compile_error!(
            "a plugin cannot be built with `panic = \"abort\"`: a panic must fail its job, not end the process. \
             Remove that setting from the profile in Cargo.toml"
        );

        const _: () = {
            use ::taskbay_plugin::private;

            #[allow(dead_code)]
            fn check_state() {
                #needs
            }

            static TASKS: [private::TaskDef; #count] = [#(<#tasks as private::Task>::DEF),*];
            const _: () = private::check_names(&TASKS);

            static PLUGIN: private::Plugin = private::Plugin {
                name: ::core::env!("CARGO_PKG_NAME"),
                names: &[#(<#tasks as private::Task>::NAME),*],
                worker_threads: #worker_threads,
                state: |setup| #state,
                teardown: #teardown,
                run: |task, call| match task {
                    #(#index => ::core::option::Option::Some(<#tasks as private::Task>::run(call)),)*
                    _ => ::core::option::Option::None,
                },
            };

            unsafe extern "C" fn init(host: &'static private::Host, settings: private::Str<'_>) {
                // SAFETY: the host calls this as the interface says, once.
                unsafe { private::init(&PLUGIN, host, settings) }
            }

            #[unsafe(no_mangle)]
            pub static TASKBAY_PLUGIN: private::Header =
                private::header(::core::env!("CARGO_PKG_NAME"), ::core::env!("CARGO_PKG_VERSION"), &TASKS, init);

            extern "C" fn module() -> private::RootModuleResult {
                private::root_module(&TASKBAY_PLUGIN)
            }

            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals)]
            // SAFETY: `module` gives the module of this very type.
            pub static #symbol: private::LibHeader = unsafe {
                private::LibHeader::from_constructor::<private::PluginModule>(module, private::CheckTypeLayout::Yes)
            };
        };
    })
}

/// The symbol under which abi_stable looks for a library's root module.
fn abi_stable_symbol() -> &'static str {
    "_1as_0lib_1header_0root_bmodule_bloader"
}
