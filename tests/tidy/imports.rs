//! Reads the paths in Rust code, and finds the files that define their names.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use proc_macro2::{TokenStream, TokenTree};

/// The names from the crate to a module or to an item in it.
type Path = Vec<String>;

/// The paths in one file.
#[derive(Default)]
pub(super) struct Code {
    module: Path,
    /// The names that the file imports, each with its path.
    imports: BTreeMap<String, Path>,
    /// All paths from the crate.
    paths: BTreeSet<Path>,
    /// Those of the unit tests, which may use everything in their module.
    paths_of_tests: BTreeSet<Path>,
}

/// The files of a crate, by module.
pub(super) struct Files(BTreeMap<Path, (String, Code)>);

impl Code {
    pub(super) fn read(module: Path, text: &str) -> Self {
        let mut code = Self { module: module.clone(), ..Self::default() };
        code.add(text.parse().expect("Rust"), &module);
        code
    }

    /// The first name of each path.
    pub(super) fn modules(&self) -> BTreeSet<&str> {
        self.paths.iter().chain(&self.paths_of_tests).filter_map(|path| path.first().map(String::as_str)).collect()
    }

    /// Adds the paths in some code of a module.
    fn add(&mut self, code: TokenStream, module: &[String]) {
        let mut tokens = code.into_iter().peekable();
        let mut before = [None, None];
        while let Some(token) = tokens.next() {
            match &token {
                // `use<>` names what a type captures.
                TokenTree::Ident(word) if word == "use" && !tokens.peek().is_some_and(|next| is(next, '<')) => {
                    self.add_import(tokens.by_ref().take_while(|token| !is(token, ';')), &[], module);
                }
                TokenTree::Ident(word) => {
                    let mut path = vec![word.to_string()];
                    while tokens.next_if(|token| is(token, ':')).is_some() {
                        // A single colon is before a type.
                        if tokens.next_if(|token| is(token, ':')).is_none() {
                            break;
                        }
                        match tokens.next_if(|token| matches!(token, TokenTree::Ident(_))) {
                            Some(name) => path.push(name.to_string()),
                            None => break,
                        }
                    }
                    if path.len() > 1 {
                        self.paths.insert(self.whole(path, module));
                    }
                }
                TokenTree::Group(group) => match &before {
                    [Some(word), Some(name)] if word == "mod" => {
                        let outside = (name == "tests").then(|| mem::take(&mut self.paths));
                        self.add(group.stream(), &[module, std::slice::from_ref(name)].concat());
                        if let Some(outside) = outside {
                            self.paths_of_tests = mem::replace(&mut self.paths, outside);
                        }
                    }
                    _ => self.add(group.stream(), module),
                },
                _ => {}
            }
            let [_, last] = before;
            before = [last, matches!(token, TokenTree::Ident(_)).then(|| token.to_string())];
        }
    }

    /// Adds an import, or a part of one in the braces behind `path`.
    fn add_import(&mut self, tree: impl IntoIterator<Item = TokenTree>, path: &[String], module: &[String]) {
        let mut path = path.to_vec();
        let mut name = None;
        let mut tree = tree.into_iter();
        while let Some(token) = tree.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => name = tree.next().map(|name| name.to_string()),
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == '*' => path.push("*".to_owned()),
                TokenTree::Group(group) => {
                    let mut part = Vec::new();
                    for token in group.stream() {
                        if is(&token, ',') {
                            self.add_import(mem::take(&mut part), &path, module);
                        } else {
                            part.push(token);
                        }
                    }
                    if !part.is_empty() {
                        self.add_import(part, &path, module);
                    }
                    return;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        let name = name.or_else(|| path.last().cloned()).expect("an import has a name");
        let path = from_the_crate(&path, module);
        if module == self.module {
            self.imports.insert(name, path.clone());
        }
        self.paths.insert(path);
    }

    /// The path from the crate of a path in an expression or a type, which may begin with an imported name.
    fn whole(&self, path: Path, module: &[String]) -> Path {
        match self.imports.get(&path[0]) {
            Some(import) if module == self.module => [import, &path[1..]].concat(),
            _ => from_the_crate(&path, module),
        }
    }
}

impl Files {
    pub(super) fn new(files: Vec<(String, Code)>) -> Self {
        Self(files.into_iter().map(|(file, code)| (code.module.clone(), (file, code))).collect())
    }

    /// The names that each file uses of another file, wherever they are re-exported. A file may use the types of the modules around
    /// it, whose files use it.
    pub(super) fn arrows(&self) -> BTreeMap<(&str, &str), BTreeSet<&str>> {
        let mut arrows = BTreeMap::<_, BTreeSet<&str>>::new();
        for (module, (file, code)) in &self.0 {
            for path in &code.paths {
                let Some((definer, name)) = self.definition(path) else { continue };
                let is_type = name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase);
                if definer != module && !(is_type && module.starts_with(definer)) {
                    arrows.entry((file.as_str(), self.0[definer].0.as_str())).or_default().insert(name);
                }
            }
        }
        arrows
    }

    /// The module of the file that defines what a path names, and its name there; `None` for a module.
    fn definition<'a>(&'a self, path: &'a [String]) -> Option<(&'a Path, &'a str)> {
        let length = (0..path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
        if self.0.contains_key(&path[..=length]) {
            return None;
        }
        let (module, (_, code)) = self.0.get_key_value(&path[..length])?;
        match code.imports.get(&path[length]) {
            // A name of another crate is imported from the module itself.
            Some(import) if import != path => self.definition(import),
            _ => Some((module, &path[length])),
        }
    }

    /// The groups of files that use each other, directly or through others of the group.
    pub(super) fn cycles(&self) -> BTreeSet<BTreeSet<&str>> {
        let arrows = self.arrows();
        let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (from, to) in arrows.keys() {
            used.entry(from).or_default().insert(to);
        }
        let reached: BTreeMap<&str, BTreeSet<&str>> = used.keys().map(|from| (*from, reached(from, &used))).collect();
        let of = |from: &str| reached.get(from).into_iter().flatten().copied();
        let group = |from: &str| of(from).filter(|to| of(to).any(|back| back == from)).collect::<BTreeSet<&str>>();
        reached.keys().map(|from| group(from)).filter(|group| !group.is_empty()).collect()
    }
}

/// All files that one uses, directly or not.
fn reached<'a>(from: &str, used: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&str> = used.get(from).into_iter().flatten().copied().collect();
    while let Some(next) = waiting.pop() {
        if reached.insert(next) {
            waiting.extend(used.get(next).into_iter().flatten());
        }
    }
    reached
}

fn is(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// The path from the crate. That to another crate continues the module, where nothing has its name.
fn from_the_crate(path: &[String], module: &[String]) -> Path {
    let rest = match path[0].as_str() {
        "crate" => return path[1..].to_vec(),
        "self" => &path[1..],
        _ => path,
    };
    let ups = rest.iter().take_while(|name| *name == "super").count();
    [&module[..module.len().saturating_sub(ups)], &rest[ups..]].concat()
}

fn code(module: &str, text: &str) -> Code {
    Code::read(module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect(), text)
}

#[test]
fn imports_are_found_in_every_form() {
    let found = |text: &str| -> Vec<String> {
        let code = code("work::pool", text);
        code.modules().into_iter().filter(|module| *module != "work").map(str::to_owned).collect()
    };
    assert_eq!(found("use crate::queue::Job;"), ["queue"]);
    assert_eq!(
        found("use crate::{events::{Event, Events}, plugin, queue::{self as q, Job},};"),
        ["events", "plugin", "queue"]
    );
    assert_eq!(found("fn f() -> crate::cli::Pool { g(crate::tasks::h()) }"), ["cli", "tasks"]);
    assert_eq!(found("use super::super::queue::Job; use super::claim;"), ["queue"]);
    assert_eq!(found("mod tests { use super::*; use super::super::super::queue; }"), ["queue"]);
    assert_eq!(found("fn f() -> impl Fn() + use<> { crate::events::g(); }"), ["events"]);
    assert_eq!(found("// crate::cli::x\nconst TEXT: &str = \"crate::queue::y\";"), Vec::<String>::new());
}

#[test]
fn files_that_use_each_other_are_found_in_every_form() {
    let cycles = |files: &[(&str, &str)]| -> Vec<Vec<String>> {
        let files = files.iter().map(|(module, text)| ((*module).to_owned(), code(module, text))).collect();
        let files = Files::new(files);
        files.cycles().into_iter().map(|cycle| cycle.into_iter().map(str::to_owned).collect()).collect()
    };
    let none = Vec::<Vec<String>>::new();
    assert_eq!(cycles(&[("a", "use crate::b::B;"), ("b", "fn f() { super::a::g() }")]), [["a", "b"]]);
    assert_eq!(cycles(&[("a", "use crate::b; fn f() { b::g() }"), ("b", "use super::a::*;")]), [["a", "b"]]);
    assert_eq!(cycles(&[("a", "use crate::b::B;"), ("b", "mod tests { use crate::a::g; }")]), none);
    assert_eq!(cycles(&[("a", "use crate::b;"), ("b", "use crate::a::A;")]), none, "a module is no use of its names");
    // Through the re-export of the module around them.
    let around = ("m", "mod a; mod b; pub use a::{A as Other, g}; pub(crate) use b::B;");
    assert_eq!(cycles(&[around, ("m::a", "use super::B;"), ("m::b", "use super::Other;")]), [["m::a", "m::b"]]);
    assert_eq!(cycles(&[around, ("m::a", ""), ("m::b", "use super::{Other, g};")]), none);
    // Through a third one.
    let three =
        [("a", "use crate::b::f;"), ("b", "use crate::c::g;"), ("c", "use crate::a::h;"), ("d", "use crate::a::h;")];
    assert_eq!(cycles(&three), [["a", "b", "c"]]);
    // A module and a file in its folder.
    assert_eq!(cycles(&[("m", "mod a; use a::f; struct Type;"), ("m::a", "use super::Type;")]), none);
    assert_eq!(cycles(&[("m", "mod a; use a::f; fn g() {}"), ("m::a", "use super::g;")]), [["m", "m::a"]]);
}
