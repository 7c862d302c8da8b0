//! The macros of `taskbay-plugin`: `#[task]` and `plugin!`.

mod duration;
mod plugin;
mod task;

use proc_macro::TokenStream;

/// Makes a function a task. See the documentation of `taskbay-plugin`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(options.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Exports tasks as a plugin. See the documentation of `taskbay-plugin`.
#[proc_macro]
pub fn plugin(input: TokenStream) -> TokenStream {
    plugin::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
