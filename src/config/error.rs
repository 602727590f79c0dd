//! What is wrong with a configuration, all of it at once.

use std::{fmt, path::PathBuf};

/// The mistakes of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Each of them; at least one.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.len() {
            1 => write!(f, "the configuration has a mistake")?,
            count => write!(f, "the configuration has {count} mistakes")?,
        }
        for mistake in &self.mistakes {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct Mistake {
    /// Where the value came from.
    pub origin: Origin,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A place in a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A file as a whole.
    WholeFile {
        /// The file.
        path: PathBuf,
    },
    /// A variable of the environment.
    Variable {
        /// Its name.
        name: String,
    },
    /// A flag of the command line.
    Flag {
        /// Its name, with dashes.
        name: &'static str,
    },
}

impl Origin {
    /// Mistakes are told from the file down to the flags, and within the file by line.
    pub(super) const fn order(&self) -> (u8, usize) {
        match self {
            Self::WholeFile { .. } => (0, 0),
            Self::File { line, .. } => (1, *line),
            Self::Variable { .. } => (2, 0),
            Self::Flag { .. } => (3, 0),
            Self::Default => (4, 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::WholeFile { path } => write!(f, "{}", path.display()),
            Self::Variable { name } => f.write_str(name),
            Self::Flag { name } => f.write_str(name),
        }
    }
}
