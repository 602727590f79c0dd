//! The server that is measured: one that runs already, or one that is started for this and ended after it.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

/// Which server.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Start this `tidings` on free ports, and end it afterwards.
    #[arg(long, value_name = "PATH", global = true, conflicts_with_all = ["http", "grpc", "pid"])]
    pub serve: Option<PathBuf>,

    /// Where the started server keeps its data; by default a temporary directory (see TMPDIR).
    #[arg(long, value_name = "DIR", global = true, requires = "serve")]
    pub data: Option<PathBuf>,

    /// The addresses for streams of a server that runs, or of a cluster's edges: streams are spread over them.
    #[arg(
        long,
        value_name = "ADDR[,ADDR]",
        global = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:8080"
    )]
    pub http: Vec<SocketAddr>,

    /// The addresses for publishing of a server that runs, or of a cluster's ingest nodes: connections are spread over them.
    #[arg(
        long,
        value_name = "ADDR[,ADDR]",
        global = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:50051"
    )]
    pub grpc: Vec<SocketAddr>,

    /// The process of a server that runs: without it, nothing is said of memory.
    #[arg(long, global = true)]
    pub pid: Option<u32>,
}

/// A server, or the nodes of a cluster.
#[derive(Debug)]
pub struct Node {
    /// Where streams are, at least one address.
    pub http: Vec<SocketAddr>,
    /// Where to publish, at least one address.
    pub grpc: Vec<SocketAddr>,
    /// Its process, if known.
    pub pid: Option<u32>,
    _started: Option<Started>,
}

impl Node {
    /// The server that the options name.
    ///
    /// # Errors
    /// If it is to be started and does not start.
    pub fn reach(options: &Options) -> Result<Self> {
        match &options.serve {
            Some(program) => Self::start(program, options.data.as_deref(), &[]),
            None => Ok(Self {
                http: options.http.clone(),
                grpc: options.grpc.clone(),
                pid: options.pid,
                _started: None,
            }),
        }
    }

    /// Starts a server on free ports of the loopback, with its data in a temporary directory unless told otherwise.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(program: &Path, data: Option<&Path>, settings: &[(&str, &str)]) -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        // It is started in another directory: a relative path would be lost there.
        let mut child = Command::new(std::path::absolute(program)?)
            .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0", "--data"])
            .arg(std::path::absolute(data.unwrap_or_else(|| temporary.path()))?)
            .env("TIDINGS_TELEMETRY__FORMAT", "json")
            .envs(settings.iter().copied())
            // Where no configuration file is found by accident.
            .current_dir(temporary.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let log = child.stderr.take().context("no log")?;
        let pid = child.id();
        let started = Started {
            child,
            _temporary: temporary,
        };
        let ready = ready(log)?;
        let address = |name: &str| -> Result<SocketAddr> {
            let text = ready[name].as_str().with_context(|| format!("no `{name}`: {ready}"))?;
            Ok(text.parse()?)
        };
        Ok(Self {
            http: vec![address("http")?],
            grpc: vec![address("grpc")?],
            pid: Some(pid),
            _started: Some(started),
        })
    }

    /// Where to open the stream of this number.
    #[must_use]
    pub fn streams(&self, number: usize) -> SocketAddr {
        self.http[number % self.http.len()]
    }

    /// Where to connect the publisher of this number.
    #[must_use]
    pub fn publishing(&self, number: usize) -> SocketAddr {
        self.grpc[number % self.grpc.len()]
    }

    /// Its process.
    ///
    /// # Errors
    /// If that is not known.
    pub fn process(&self) -> Result<u32> {
        self.pid.context("memory can only be read with `--pid` or `--serve`")
    }
}

/// Reads the log up to the line that says where the server listens; what comes after it is passed on.
fn ready(log: ChildStderr) -> Result<Value> {
    let mut lines = BufReader::new(log).lines();
    let mut before = String::new();
    while let Some(line) = lines.next() {
        let line = line?;
        match serde_json::from_str::<Value>(&line) {
            Ok(found) if found["message"] == "ready" => {
                // It ends with the server, which closes the log.
                thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
                return Ok(found);
            }
            _ => {
                before.push_str(&line);
                before.push('\n');
            }
        }
    }
    bail!("the server did not start:\n{before}")
}

/// A server that ends with this value.
#[derive(Debug)]
struct Started {
    child: Child,
    _temporary: TempDir,
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself; nothing else can go wrong, and nothing would depend on it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
