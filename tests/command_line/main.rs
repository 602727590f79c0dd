//! The program as people run it: arguments in; output, errors and exit codes out.

mod configuration;
mod listening;
mod publishing;
mod revoking;
mod routing;
mod tokens;

use std::{
    path::Path,
    process::{Command, Output},
};

/// The program, in a directory of its own and without this machine's settings.
fn tidings(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(arguments).current_dir(dir);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    tidings(dir, arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}
