//! Finds functions in `plugin!` that lack `#[task]`.
//!
//! The compiler would only report that they are not types. This module reads the source file, if the compiler reveals its
//! path, and reports only paths that can mean nothing but a plain function.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::Span;
use syn::{Attribute, Item, ItemFn, ext::IdentExt};

/// An error for each path to a function without the attribute.
pub(crate) fn errors(tasks: &[syn::Path]) -> Option<syn::Error> {
    let source = Source::of_invocation()?;
    let errors = tasks.iter().filter(|task| source.has_plain_function(task)).map(|task| {
        let name = task.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        syn::Error::new_spanned(task, format!("`{name}` is not a task: put `#[task]` on the function `{name}`"))
    });
    errors.reduce(|mut all, error| {
        all.combine(error);
        all
    })
}

/// The items of a module in this file.
struct Source {
    items: Vec<Item>,
    /// The folder with the files of its modules.
    folder: PathBuf,
}

impl Source {
    /// The file with the `plugin!`, if the paths are relative to it.
    fn of_invocation() -> Option<Self> {
        let source = Self::read(&call_site_file()?)?;
        let here = |item: &Item| matches!(item, Item::Macro(item) if item.mac.path.segments.last().is_some_and(|last| last.ident == "plugin"));
        source.items.iter().any(here).then_some(source)
    }

    fn read(file: &Path) -> Option<Self> {
        let items = syn::parse_file(&fs::read_to_string(file).ok()?).ok()?.items;
        let above = file.parent()?;
        let stem = file.file_stem()?;
        let folder = if stem == "lib" || stem == "main" || stem == "mod" { above.to_owned() } else { above.join(stem) };
        Some(Self { items, folder })
    }

    fn has_plain_function(&self, path: &syn::Path) -> bool {
        let mut segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect();
        let Some(name) = segments.pop() else { return false };
        let mut inner = None;
        for module in segments {
            let Some(next) = inner.as_ref().unwrap_or(self).module(&module) else { return false };
            inner = Some(next);
        }
        let functions = inner.as_ref().unwrap_or(self).functions(&name);
        !functions.is_empty() && functions.iter().all(|function| function.attrs.iter().all(is_plain))
    }

    fn functions(&self, name: &str) -> Vec<&ItemFn> {
        let named = self.items.iter().filter_map(|item| match item {
            Item::Fn(function) => Some(function),
            _ => None,
        });
        named.filter(|function| function.sig.ident.unraw() == name).collect()
    }

    fn module(&self, name: &str) -> Option<Self> {
        let module = self.items.iter().find_map(|item| match item {
            Item::Mod(module) if module.ident.unraw() == name && module.attrs.iter().all(is_plain) => Some(module),
            _ => None,
        })?;
        match &module.content {
            Some((_, items)) => Some(Self { items: items.clone(), folder: self.folder.join(name) }),
            None => [format!("{name}.rs"), format!("{name}/mod.rs")]
                .iter()
                .find_map(|file| Self::read(&self.folder.join(file))),
        }
    }
}

/// Whether an attribute is built in, and neither makes a function a task nor moves a module's file.
fn is_plain(attribute: &Attribute) -> bool {
    const PLAIN: [&str; 12] = [
        "doc",
        "allow",
        "expect",
        "warn",
        "deny",
        "forbid",
        "cfg",
        "inline",
        "cold",
        "must_use",
        "deprecated",
        "track_caller",
    ];
    PLAIN.iter().any(|plain| attribute.path().is_ident(plain))
}

fn call_site_file() -> Option<PathBuf> {
    // Not available outside of the compiler, as in tests.
    proc_macro::is_available().then(|| Span::call_site().unwrap().local_file()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(source: &str, path: &str) -> bool {
        let items = syn::parse_file(source).expect("a file").items;
        let source = Source { items, folder: PathBuf::new() };
        source.has_plain_function(&syn::parse_str(path).expect("a path"))
    }

    #[test]
    fn functions_without_the_attribute_are_found_where_they_are() {
        assert!(plain("/// Charges.\n#[allow(unused)] async fn charge() {}", "charge"));
        assert!(plain("mod mail { pub fn send() {} }", "mail::send"));
        assert!(plain("#[cfg(a)] fn r#async() {} #[cfg(not(a))] fn r#async() {}", "r#async"));
    }

    #[test]
    fn what_may_be_a_task_is_left_to_the_compiler() {
        for source in [
            "#[task] fn charge() {}",
            "#[taskbay_plugin::task(timeout = \"3s\")] fn charge() {}",
            "#[cfg_attr(all(), task)] fn charge() {}",
            "#[cfg(a)] fn charge() {} #[cfg(not(a))] #[task] fn charge() {}",
            "use mail::charge;",
            "tasks!(charge);",
            "mod mail { fn charge() {} }",
        ] {
            assert!(!plain(source, "charge"), "{source}");
        }
        assert!(!plain("#[path = \"x.rs\"] mod mail { fn charge() {} }", "mail::charge"));
        assert!(!plain("mod mail;", "mail::charge"));
        assert!(!plain("fn charge() {}", "crate::charge"));
    }
}
