//! The documents, as far as the checks need to read them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::root;

/// A document of the project.
pub(crate) struct Document {
    /// Its path from the root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Document {
    /// Its lines outside of fenced blocks, numbered from 1.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(at, line)| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            (!fenced && !fence).then_some((at + 1, line))
        })
    }

    /// What stands between backticks in its prose.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.prose()
            .flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |code| (number, code)))
    }

    /// The targets of its links.
    pub(crate) fn links(&self) -> impl Iterator<Item = (usize, &str)> {
        self.prose().flat_map(|(number, line)| {
            line.split("](")
                .skip(1)
                .filter_map(move |rest| Some((number, rest.split_once(')')?.0)))
        })
    }

    /// The anchors that its headings have.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        headings
            .map(|(_, line)| {
                let title = line.trim_start_matches('#').trim().to_lowercase();
                let kept = title
                    .chars()
                    .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
                kept.map(|c| if c == ' ' { '-' } else { c }).collect()
            })
            .collect()
    }

    /// The commands of its fenced `sh` blocks.
    pub(crate) fn commands(&self) -> Vec<(usize, String)> {
        let mut commands = Vec::new();
        let mut shell = false;
        let mut begun: Option<(usize, String)> = None;
        for (at, line) in self.text.lines().enumerate() {
            if line.starts_with("```") {
                shell = line == "```sh";
                continue;
            }
            if !shell {
                continue;
            }
            let (number, mut command) = begun.take().unwrap_or((at + 1, String::new()));
            if let Some(part) = line.strip_suffix('\\') {
                command.push_str(part);
                begun = Some((number, command));
            } else {
                command.push_str(line);
                commands.push((number, command));
            }
        }
        commands
    }

    /// Where a line is.
    pub(crate) fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// Every document outside of what is built or fetched.
pub(crate) fn documents() -> Vec<Document> {
    fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "data" && name != "node_modules" {
                collect(&path, found);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    collect(root(), &mut paths);
    paths.sort_unstable();
    assert!(paths.contains(&root().join("README.md")));
    let documents = paths.into_iter().map(|path| Document {
        text: fs::read_to_string(&path).expect("text"),
        path: path.strip_prefix(root()).expect("within").to_owned(),
    });
    documents.collect()
}

/// The rows of the table in `text` that follows `heading`, each with its cells.
pub(crate) fn table<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = text
        .split_once(heading)
        .unwrap_or_else(|| panic!("there is no table {heading:?}"));
    let rows = rest
        .trim_start_matches('\n')
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> = rows
        .map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty(), "the table {heading:?} is empty");
    rows
}
