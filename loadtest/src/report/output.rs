//! Where a report goes.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::Report;

/// Where a report goes: as a table to standard output unless told otherwise.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Output {
    /// Print the report as one JSON object, or write it to a file, and print the table.
    #[arg(long, global = true, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub json: Option<Option<PathBuf>>,

    /// Write the report to a file as one HTML page with plots, which needs nothing else.
    #[arg(long, global = true, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Output {
    /// Prints and writes the report.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, report: &mut Report) -> Result<()> {
        report.here();
        let write = |file: &PathBuf, text: String| {
            fs::write(file, text).with_context(|| format!("cannot write the report to {}", file.display()))
        };
        match &self.json {
            Some(None) => println!("{}", serde_json::to_string(report)?),
            Some(Some(file)) => {
                print!("{report}");
                write(file, serde_json::to_string(report)?)?;
            }
            None => print!("{report}"),
        }
        if let Some(file) = &self.html {
            write(file, report.to_html())?;
        }
        Ok(())
    }
}
