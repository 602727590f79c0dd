//! Keeps the imports pointing one way: `model ← journal, log, bus ← feed ← hub ← edge`; only `node` knows them all; nothing imports `node`, `cli`
//! or `admin`.
//!
//! Every path in `src/` that leads into another top-level module counts, in a `use` or in the code, however it is written; tests within
//! the modules may look further. What stands in the arguments of a macro is read as paths too, as far as it looks like one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// What each top-level module may import. `node`, `cli` and `admin` stand in no list: nothing imports them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("problem", &["model"]),
    ("gate", &["model", "problem"]),
    ("tls", &[]),
    ("proxies", &["model"]),
    ("addresses", &["proxies"]),
    ("nats", &["model", "tls"]),
    ("members", &["model", "nats"]),
    ("log", &["members", "model", "tls"]),
    ("bus", &["model", "nats"]),
    ("journal", &["bus", "log", "members", "model", "nats", "tls"]),
    (
        "ingest",
        &[
            "addresses",
            "auth",
            "bus",
            "gate",
            "journal",
            "model",
            "problem",
            "proxies",
            "tls",
        ],
    ),
    ("feed", &["bus", "log", "model"]),
    ("hub", &["bus", "feed", "log", "model"]),
    ("auth", &["model", "problem", "tls"]),
    (
        "edge",
        &[
            "addresses",
            "auth",
            "bus",
            "feed",
            "gate",
            "hub",
            "log",
            "model",
            "problem",
            "proxies",
            "tls",
        ],
    ),
    ("config", &["auth", "model"]),
    ("telemetry", &[]),
    ("admin", &["auth", "gate", "model", "problem", "proxies", "telemetry"]),
    ("cli", &["auth", "config", "model", "telemetry", "tls"]),
    (
        "node",
        &[
            "addresses",
            "admin",
            "auth",
            "bus",
            "config",
            "edge",
            "feed",
            "gate",
            "hub",
            "ingest",
            "journal",
            "log",
            "members",
            "model",
            "nats",
            "problem",
            "proxies",
            "telemetry",
            "tls",
        ],
    ),
];

/// The names by which the crate's root is reached.
const ROOTS: [&str; 2] = ["crate", "tidings"];

#[test]
fn imports_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut read = 0;
    for path in sources(&src) {
        let module = module_of(path.strip_prefix(&src).expect("below src"));
        // `lib.rs` declares the modules, `main.rs` starts the program: they may see everything.
        let Some(top) = module.first() else { continue };
        if module.last().is_some_and(|last| last == "tests") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == top) else {
            wrong.push(format!(
                "{}: the module `{top}` has no place in the order yet: give it one here",
                path.display()
            ));
            continue;
        };
        read += 1;
        for (line, imported) in imports(&text, &module).expect("Rust") {
            if imported != *top && !allowed.contains(&imported.as_str()) {
                wrong.push(format!(
                    "{}:{line}: `{top}` must not import `{imported}`",
                    path.display()
                ));
            }
        }
    }
    assert!(read > 0, "there is something to read");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_order_itself_has_no_circles() {
    for (name, allowed) in ALLOWED {
        let mut reached: BTreeSet<&str> = allowed.iter().copied().collect();
        loop {
            let next: BTreeSet<&str> = ALLOWED
                .iter()
                .filter(|(module, _)| reached.contains(module))
                .flat_map(|(_, allowed)| allowed.iter().copied())
                .chain(reached.iter().copied())
                .collect();
            if next.len() == reached.len() {
                break;
            }
            reached = next;
        }
        assert!(!reached.contains(name), "`{name}` imports itself in the end");
        for hidden in ["node", "cli"] {
            assert!(!reached.contains(hidden), "`{name}` imports `{hidden}`");
        }
        assert!(
            *name == "node" || !reached.contains("admin"),
            "`{name}` imports `admin`"
        );
    }
}

/// `unsafe_code` is denied everywhere: whoever allows it says why, where everybody can read it.
#[test]
fn no_unsafe_code_without_a_written_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dirs = ["src", "cluster", "proto", "loadtest", "benches", "fuzz", "tests"].map(|dir| root.join(dir));
    let mut read = 0;
    for path in dirs.iter().flat_map(|dir| sources(dir)) {
        // This file names what it looks for.
        if path.ends_with(file!()) {
            continue;
        }
        read += 1;
        let text = fs::read_to_string(&path).expect("a source file");
        for (at, _) in text.match_indices("unsafe_code") {
            let attribute = text[at..].split(")]").next().unwrap_or_default();
            assert!(
                attribute.contains("reason = \""),
                "{}: unsafe code needs a reason",
                path.display()
            );
        }
    }
    assert!(read > 0, "there is something to read");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    assert!(manifest.contains("unsafe_code = \"deny\""));
}

/// Every Rust file below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The module that a file is: `hub/mod.rs` is `hub`, `cli/listen/parser.rs` is `cli::listen::parser`, `lib.rs` and `main.rs` are the root.
fn module_of(path: &Path) -> Vec<String> {
    let mut module: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// The top-level modules that a file leads into, each with the line where it does.
fn imports(text: &str, module: &[String]) -> syn::Result<Vec<(usize, String)>> {
    let file = syn::parse_file(text)?;
    let mut finder = Finder {
        module: module.to_vec(),
        found: Vec::new(),
    };
    finder.visit_file(&file);
    Ok(finder.found)
}

struct Finder {
    /// Where it is: the file's module, and those within the file.
    module: Vec<String>,
    found: Vec<(usize, String)>,
}

impl Finder {
    /// Notes what a path leads into.
    fn path(&mut self, names: &[String], line: usize) {
        let Some(first) = names.first() else { return };
        let mut at = match first.as_str() {
            root if ROOTS.contains(&root) => Vec::new(),
            "self" | "super" => self.module.clone(),
            // A name of this module, or another crate's.
            _ => return,
        };
        for name in names.iter().skip(usize::from(first != "super")) {
            if name == "super" {
                at.pop();
            } else {
                at.push(name.clone());
            }
        }
        let top = match at.first() {
            // A renamed or globbed root would hide whatever goes through it.
            None => "the whole crate".to_owned(),
            Some(top) if top == "*" => "the whole crate".to_owned(),
            Some(top) => top.clone(),
        };
        self.found.push((line, top));
    }

    fn use_tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let mut names = before.to_vec();
        match tree {
            syn::UseTree::Path(path) => {
                names.push(path.ident.to_string());
                self.use_tree(&path.tree, &names);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(tree, &names);
                }
            }
            syn::UseTree::Name(name) => self.use_end(names, &name.ident),
            syn::UseTree::Rename(rename) => self.use_end(names, &rename.ident),
            syn::UseTree::Glob(glob) => {
                names.push("*".to_owned());
                self.path(&names, glob.star_token.spans[0].start().line);
            }
        }
    }

    fn use_end(&mut self, mut names: Vec<String>, last: &syn::Ident) {
        // `a::{self}` is `a`.
        if names.is_empty() || last != "self" {
            names.push(last.to_string());
        }
        self.path(&names, last.span().start().line);
    }

    /// Finds what looks like a path in a macro's arguments.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) if !follows_colons(&tokens[..at]) => {
                    let names = path_in(&tokens[at..]);
                    if names.len() > 1 {
                        self.path(&names, ident.span().start().line);
                    }
                }
                _ => {}
            }
        }
    }
}

fn is_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

fn follows_colons(before: &[TokenTree]) -> bool {
    let mut last = before.iter().rev();
    // `::tidings::x` leads somewhere all the same; `a::crate` does not exist.
    is_colon(last.next()) && is_colon(last.next()) && matches!(last.next(), Some(TokenTree::Ident(_)))
}

/// The names of the path that begins here: `crate :: hub :: Hub`.
fn path_in(tokens: &[TokenTree]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        names.push(ident.to_string());
        if !(is_colon(tokens.get(at + 1)) && is_colon(tokens.get(at + 2))) {
            break;
        }
        at += 3;
    }
    names
}

/// Whether it is compiled for tests alone.
fn for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|condition| condition == "test")
    })
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if for_tests(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !for_tests(&item.attrs) {
            self.use_tree(&item.tree, &[]);
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        // `extern crate self as other` gives the root another name.
        let name = if item.ident == "self" {
            "crate".to_owned()
        } else {
            item.ident.to_string()
        };
        self.path(&[name], item.ident.span().start().line);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first()
            && names.len() > 1
        {
            self.path(&names, first.ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {
        // `pub(in crate::x)` says who may see this, which imports nothing.
    }

    fn visit_meta_list(&mut self, item: &'ast syn::MetaList) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }
}

/// What the checker finds in a file of `hub::live`.
fn found(text: &str) -> Vec<String> {
    let module = ["hub".to_owned(), "live".to_owned()];
    let found = imports(text, &module).expect("Rust");
    found.into_iter().map(|(_, module)| module).collect()
}

#[test]
fn the_checker_sees_every_way_to_write_an_import() {
    for (text, expected) in [
        ("use crate::edge;", vec!["edge"]),
        ("use crate::edge::Frame;", vec!["edge"]),
        ("use crate::edge as e;", vec!["edge"]),
        ("pub use crate::edge::*;", vec!["edge"]),
        ("use tidings::edge;", vec!["edge"]),
        ("use ::tidings::edge;", vec!["edge"]),
        ("use crate::{log, edge::{self, Frame}};", vec!["log", "edge", "edge"]),
        ("use {crate::log, crate::edge};", vec!["log", "edge"]),
        ("use super::super::edge;", vec!["edge"]),
        ("use super::super::{edge, log::Log};", vec!["edge", "log"]),
        ("use self::super::super::edge;", vec!["edge"]),
        ("mod deep { use super::super::super::edge; }", vec!["edge"]),
        ("fn f() { use crate::edge; }", vec!["edge"]),
        ("fn f() -> crate::edge::Frame { todo!() }", vec!["edge"]),
        ("fn f() { let x = super::super::edge::new(); }", vec!["edge"]),
        ("impl crate::edge::Outlet for X {}", vec!["edge"]),
        ("#[derive(crate::edge::Magic)] struct X;", vec!["edge"]),
        ("fn f() { println!(\"{}\", crate::edge::name()); }", vec!["edge"]),
        (
            "fn f() { vec![(tidings::edge::N, super::super::log::N)]; }",
            vec!["edge", "log"],
        ),
        ("fn f() { crate::edge::m!(); }", vec!["edge"]),
        ("fn f<T: Into<Vec<crate::edge::Frame>>>(x: T) {}", vec!["edge"]),
        ("use crate as root;", vec!["the whole crate"]),
        ("extern crate self as root;", vec!["the whole crate"]),
        ("use crate::*;", vec!["the whole crate"]),
        ("use super::super::*;", vec!["the whole crate"]),
    ] {
        assert_eq!(found(text), expected, "{text}");
    }
}

#[test]
fn the_checker_leaves_alone_what_leads_nowhere_else() {
    for text in [
        "use std::log; use bytes::{edge, Bytes};",
        "use edge::Frame;",
        "fn f() { edge::new(); other::crate_name(); }",
        "// use crate::edge;",
        "const X: &str = \"crate::edge\";",
        "#[cfg(test)] mod tests { use crate::edge; }",
        "#[cfg(test)] use crate::edge;",
        "fn f() { println!(\"crate::edge {}\", x); }",
        "pub(in crate::hub) fn f() {}",
        "pub(crate) struct X;",
    ] {
        assert_eq!(found(text), [""; 0], "{text}");
    }
    // Within its own top-level module anything goes.
    for text in [
        "use super::Hub;",
        "use self::x::Y;",
        "use crate::hub::Hub;",
        "fn f() { super::g(); }",
    ] {
        assert_eq!(found(text), ["hub"], "{text}");
    }
}

#[test]
fn files_are_the_modules_they_are() {
    for (path, module) in [
        ("lib.rs", ""),
        ("main.rs", ""),
        ("hub/mod.rs", "hub"),
        ("hub/live.rs", "hub::live"),
        ("cli/listen/mod.rs", "cli::listen"),
    ] {
        assert_eq!(module_of(Path::new(path)).join("::"), module);
    }
}
