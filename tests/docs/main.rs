//! Keeps the documentation honest: what it links to, the settings and commands it names, and the vectors and tables it publishes are those of
//! the code.

mod document;
mod published;
mod shell;

use std::{collections::BTreeSet, fs, path::Path};

use clap::{Parser as _, error::ErrorKind};
use tidings::{cli::Cli, config::Config};

use self::{
    document::{Document, documents},
    shell::{arguments, simple_commands},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails with everything that is wrong, or if nothing was looked at.
fn check(looked_at: usize, wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(looked_at > 0, "nothing was looked at");
}

#[test]
fn links_lead_somewhere() {
    let (documents, mut looked_at, mut wrong) = (documents(), 0, Vec::new());
    for document in &documents {
        for (line, link) in document.links().filter(|(_, link)| !link.contains("://")) {
            looked_at += 1;
            let (file, anchor) = link
                .split_once('#')
                .map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let here = document.path.parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() {
                root().join(&document.path)
            } else {
                root().join(here).join(file)
            };
            let Ok(target) = target.canonicalize() else {
                wrong.push(format!("{}: there is no {link}", document.place(line)));
                continue;
            };
            let of_target = |document: &&Document| root().join(&document.path) == target;
            if let Some(anchor) = anchor
                && !documents
                    .iter()
                    .find(of_target)
                    .is_some_and(|document| document.anchors().contains(anchor))
            {
                wrong.push(format!("{}: {link} has no such heading", document.place(line)));
            }
        }
    }
    check(looked_at, &wrong);
}

#[test]
fn paths_that_are_named_exist() {
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for document in documents() {
        for (line, code) in document.code() {
            let first = code.split_once('/').map_or("", |(first, _)| first);
            let folders = [
                "src", "proto", "cluster", "loadtest", "benches", "tests", "docs", "examples", ".ci",
            ];
            if !folders.contains(&first) || code.contains(['*', ' ', '{']) {
                continue;
            }
            looked_at += 1;
            if !root().join(code).exists() {
                wrong.push(format!("{}: there is no {code}", document.place(line)));
            }
        }
    }
    check(looked_at, &wrong);
}

#[test]
fn every_decision_is_in_the_index() {
    let index = documents()
        .into_iter()
        .find(|document| document.path == Path::new("docs/adr/README.md"))
        .expect("an index");
    let linked: BTreeSet<String> = index.links().map(|(_, link)| link.to_owned()).collect();
    let there: BTreeSet<String> = documents()
        .iter()
        .filter(|document| document.path.starts_with("docs/adr"))
        .map(|document| {
            document
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name != "README.md")
        .collect();
    assert!(!there.is_empty());
    assert_eq!(linked, there);
}

/// Every key of the configuration, `section.key`.
fn settings(tree: &str) -> BTreeSet<String> {
    let tree: toml::Table = tree.parse().expect("TOML");
    tree.iter()
        .flat_map(|(section, keys)| {
            let keys = keys.as_table().expect("a section").keys();
            keys.map(move |key| format!("{section}.{key}"))
        })
        .collect()
}

#[test]
fn settings_that_are_named_exist() {
    let known = settings(&Config::default().to_toml());
    let shown = settings(&read("examples/tidings.toml"));
    let sections: BTreeSet<&str> = known.iter().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for document in documents() {
        let named = document.code().filter_map(|(line, code)| {
            let key = code.split([' ', '=']).next().unwrap_or_default();
            let (section, name) = key.split_once('.')?;
            let is_key = sections.contains(section) && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            is_key.then(|| (line, key.to_owned()))
        });
        let variables = document.text.lines().enumerate().flat_map(|(at, line)| {
            let names = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let keys = names.filter_map(|name| Some(name.strip_prefix("TIDINGS_")?.to_lowercase()));
            keys.filter(|key| key.contains("__") && key != "section__key")
                .map(move |key| (at + 1, key.replacen("__", ".", 1)))
        });
        for (line, key) in named.chain(variables) {
            looked_at += 1;
            if !known.contains(&key) || !shown.contains(&key) {
                wrong.push(format!("{}: there is no setting {key}", document.place(line)));
            }
        }
    }
    check(looked_at, &wrong);
}

#[test]
fn commands_are_understood() {
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for document in documents() {
        for (line, command) in document.commands() {
            for words in simple_commands(&command) {
                let Some(arguments) = arguments(&words) else { continue };
                looked_at += 1;
                if let Err(error) = Cli::try_parse_from(arguments)
                    && !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
                {
                    wrong.push(format!("{}: {command}\n{error}", document.place(line)));
                }
            }
        }
    }
    check(looked_at, &wrong);
}

#[test]
fn the_front_door_has_the_commands_that_are_named() {
    let script = read("dev");
    let (_, usage) = script.split_once("usage: ./dev COMMAND").expect("a usage");
    let (usage, _) = usage.split_once("\nTEXT\n").expect("its end");
    let known: BTreeSet<&str> = usage
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| !word.is_empty())
        .collect();
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for document in documents() {
        let fenced = document.commands();
        let fenced = fenced.iter().map(|(line, command)| (*line, command.as_str()));
        for (line, command) in fenced.chain(document.code()) {
            for words in simple_commands(command) {
                let Some(at) = words.iter().position(|word| word == "./dev") else {
                    continue;
                };
                let Some(command) = words.get(at + 1) else { continue };
                looked_at += 1;
                if !known.contains(command.as_str()) {
                    wrong.push(format!("{}: there is no ./dev {command}", document.place(line)));
                }
                if let ("test", Some(part)) = (command.as_str(), words.get(at + 2))
                    && part != "unit"
                    && ![".rs", "/main.rs", "/run"]
                        .iter()
                        .any(|file| root().join(format!("tests/{part}{file}")).exists())
                {
                    wrong.push(format!(
                        "{}: there is no part {part} of the tests",
                        document.place(line)
                    ));
                }
            }
        }
    }
    check(looked_at, &wrong);
}
