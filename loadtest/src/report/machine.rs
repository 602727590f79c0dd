//! Where a run took place, and how to repeat it.

use std::{env, fs, thread};

use serde::{Deserialize, Serialize};

/// The machine, and the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// What was run, as one would type it.
    pub command: String,
    /// Seconds since 1970.
    pub time: u64,
    /// Processors that this process may use.
    pub cores: u64,
    /// What these are.
    pub processor: String,
    /// In bytes.
    pub memory: u64,
    /// Name, release and architecture.
    pub kernel: String,
    /// Programs that took part, each with its version.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    /// This one, as it runs this program.
    #[must_use]
    pub fn here() -> Self {
        let system = rustix::system::uname();
        let [name, release, machine] =
            [system.sysname(), system.release(), system.machine()].map(|name| name.to_string_lossy().into_owned());
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let information = rustix::system::sysinfo();
        Self {
            command: command_line(env::args()),
            time: std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
            cores: thread::available_parallelism().map_or(0, |cores| cores.get() as u64),
            processor: model(&processors).unwrap_or_default().to_owned(),
            memory: information.totalram * u64::from(information.mem_unit),
            kernel: format!("{name} {release} {machine}"),
            versions: vec![("tidings-loadtest".to_owned(), env!("CARGO_PKG_VERSION").to_owned())],
        }
    }
}

fn model(processors: &str) -> Option<&str> {
    let line = processors.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// Arguments as one would type them in a shell; of the program its name alone.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let plain = |argument: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./:,@%+".contains(&byte);
        !argument.is_empty() && argument.bytes().all(is_plain)
    };
    let words = arguments.enumerate().map(|(place, argument)| match place {
        0 => argument.rsplit('/').next().unwrap_or_default().to_owned(),
        _ if plain(&argument) => argument,
        _ => format!("'{}'", argument.replace('\'', r"'\''")),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed() {
        let arguments = ["/opt/bin/tidings-loadtest", "hold", "--url={base}/a?b=c", "it's", ""];
        assert_eq!(
            command_line(arguments.into_iter().map(str::to_owned)),
            r"tidings-loadtest hold '--url={base}/a?b=c' 'it'\''s' ''"
        );
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory > 1 << 20);
        assert!(machine.kernel.starts_with("Linux "), "{}", machine.kernel);
        assert_eq!(
            model("processor : 0\nmodel name\t: A Chip @ 2 GHz\n"),
            Some("A Chip @ 2 GHz")
        );
    }
}
