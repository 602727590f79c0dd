//! The server that is measured: one that runs already, or one that is started for this and ended after it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{
    part::{Part, Port, Program},
    tokens::Tokens,
};
use crate::{publish::To, template::Template};

/// Which server.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Start this `tidings` on free ports, and end it afterwards.
    #[arg(long, value_name = "PATH", global = true, conflicts_with_all = ["http", "grpc", "pid"])]
    pub serve: Option<PathBuf>,

    /// Where the started server keeps its data; by default a temporary directory (see TMPDIR).
    #[arg(long, value_name = "DIR", global = true, requires = "serve")]
    pub data: Option<PathBuf>,

    /// A setting of the started server, such as `http.heartbeat=1h`.
    #[arg(long, value_name = "KEY=VALUE", global = true, requires = "serve", value_parser = setting)]
    pub set: Vec<(String, String)>,

    /// Have the started server ask everybody who they are: each stream brings a token of its own, and so does the publisher.
    #[arg(long, global = true, requires = "serve")]
    pub auth: bool,

    /// How a server that runs is spoken to, if it is not Tidings: a template such as those in loadtest/peers.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "serve")]
    pub template: Option<PathBuf>,

    /// The addresses for streams of a server that runs, or of a cluster's edges: streams are spread over them. By default the template's,
    /// which for Tidings is 127.0.0.1:8080.
    #[arg(long, value_name = "ADDR[,ADDR]", global = true, value_delimiter = ',')]
    pub http: Vec<SocketAddr>,

    /// The addresses for publishing of a server that runs, or of a cluster's ingest nodes: connections are spread over them. By default
    /// the template's, which for Tidings is 127.0.0.1:50051.
    #[arg(long, value_name = "ADDR[,ADDR]", global = true, value_delimiter = ',')]
    pub grpc: Vec<SocketAddr>,

    /// The processes of a server that runs: without them, nothing is said of memory.
    #[arg(long, value_name = "PID[,PID]", global = true, value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// The file with the secret (HS256) of an issuer that a server which runs knows: tokens for streams and publisher are signed with it.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "serve")]
    pub secret_file: Option<PathBuf>,

    /// The audience of these tokens.
    #[arg(long, global = true, default_value = "tidings")]
    pub audience: String,
}

fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("a setting is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
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
    /// Further processes of it.
    pub others: Vec<u32>,
    /// How it is spoken to.
    pub template: Template,
    /// What streams and publishers show, if they are asked who they are.
    pub tokens: Option<Tokens>,
    started: Option<Started>,
}

/// How a server is to be started.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Where it keeps its data; in a directory that goes with it if nothing is said.
    pub data: Option<PathBuf>,
    /// Its settings: `http.heartbeat`, and the value.
    pub settings: Vec<(String, String)>,
    /// The issuer whose tokens it asks for; without one nobody is asked who they are.
    pub tokens: Option<Tokens>,
}

impl Setup {
    /// With a setting more.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts it on free ports of the loopback, which it keeps when it is started again. Blocks the thread until it is ready.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(&self, program: &Path) -> Result<Node> {
        let directory = tempfile::Builder::new().prefix("tidings-loadtest-").tempdir()?;
        let ports = [Port::take()?, Port::take()?, Port::take()?];
        let [http, grpc, admin] = ports.each_ref().map(Port::address);
        let data = match &self.data {
            Some(data) => std::path::absolute(data)?,
            None => directory.path().join("data"),
        };
        let mut program = Program::tidings("tidings", program, directory.path(), "serve")?
            .arguments(["--http", &http.to_string(), "--grpc", &grpc.to_string()])
            .arguments(["--admin", &admin.to_string(), "--data"])
            .arguments([data]);
        if let Some(tokens) = &self.tokens {
            let (key, value) = tokens.setting();
            program = program.set(key, &value);
        }
        for (key, value) in &self.settings {
            program = program.set(key, value);
        }
        let mut part = Part::new(program);
        part.launch()?;
        part.ready_blocking()?;
        Ok(Node {
            http: vec![http],
            grpc: vec![grpc],
            pid: part.pid(),
            others: Vec::new(),
            template: Template::tidings(),
            tokens: self.tokens.clone(),
            started: Some(Started {
                part,
                admin,
                _ports: ports,
                directory,
            }),
        })
    }
}

impl Node {
    /// The server that the options name. Users of a server that asks may follow what these patterns say, beside their inboxes.
    ///
    /// # Errors
    /// If it is to be started and does not start.
    pub fn reach(options: &Options, follow: &[&str]) -> Result<Self> {
        if let Some(program) = &options.serve {
            let setup = Setup {
                data: options.data.clone(),
                settings: options.set.clone(),
                tokens: options.auth.then(|| Tokens::new(follow)),
            };
            return setup.start(program);
        }
        let tokens = match &options.secret_file {
            Some(file) => {
                let secret = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                Some(Tokens::of(secret.trim_end().to_owned(), &options.audience, follow))
            }
            None => None,
        };
        let template = match &options.template {
            Some(file) => Template::read(file)?,
            None => Template::tidings(),
        };
        let addresses = |told: &[SocketAddr], usual| if told.is_empty() { vec![usual] } else { told.to_vec() };
        Ok(Self {
            pid: options.pid.first().copied(),
            others: options.pid.iter().skip(1).copied().collect(),
            ..Self::at(
                addresses(&options.http, template.server.streams),
                addresses(&options.grpc, template.server.publish),
                tokens,
            )
            .speaking(template)
        })
    }

    /// One that runs, or several: with at least one address for each purpose.
    #[must_use]
    pub fn at(http: Vec<SocketAddr>, grpc: Vec<SocketAddr>, tokens: Option<Tokens>) -> Self {
        Self {
            http,
            grpc,
            pid: None,
            others: Vec::new(),
            template: Template::tidings(),
            tokens,
            started: None,
        }
    }

    /// The same, spoken to in another way.
    #[must_use]
    pub fn speaking(mut self, template: Template) -> Self {
        self.template = template;
        self
    }

    /// All its processes; none if they are not known.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        self.pid.iter().chain(&self.others).copied().collect()
    }

    /// Where and how to publish to it.
    ///
    /// # Errors
    /// If the publisher's token cannot be signed.
    pub fn to(&self) -> Result<To> {
        Ok(To {
            token: self.publisher_token()?,
            ..To::by(self.template.clone(), self.grpc.clone())
        })
    }

    /// Starts a server on free ports of the loopback, with its data in a temporary directory unless told otherwise. The settings are variables of
    /// the environment.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(program: &Path, data: Option<&Path>, settings: &[(&str, &str)]) -> Result<Self> {
        let key = |variable: &str| {
            let key = variable.strip_prefix("TIDINGS_").unwrap_or(variable);
            key.to_lowercase().replace("__", ".")
        };
        let settings = settings
            .iter()
            .map(|&(variable, value)| (key(variable), value.to_owned()));
        let setup = Setup {
            data: data.map(Path::to_owned),
            settings: settings.collect(),
            tokens: None,
        };
        setup.start(program)
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

    /// The token of a publisher that may publish to all topics, if one is asked for.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn publisher_token(&self) -> Result<Option<String>> {
        self.tokens.as_ref().map(Tokens::publisher).transpose()
    }

    /// Where its health is told, if it was started here.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.started.as_ref().map(|started| started.admin)
    }

    /// Where its log is, if it was started here.
    #[must_use]
    pub fn log(&self) -> Option<PathBuf> {
        self.started.as_ref().map(|started| started.part.log())
    }

    /// The process that was started here, to be killed and started again on the same ports and data.
    ///
    /// # Errors
    /// If it was not started here.
    pub fn part(&mut self) -> Result<&mut Part> {
        let started = self.started.as_mut();
        Ok(&mut started
            .context("only a server that was started here is ended: use `--serve`")?
            .part)
    }

    /// `kill -9`. Returns when it is gone.
    ///
    /// # Errors
    /// If it was not started here.
    pub async fn kill(&mut self) -> Result<()> {
        self.part()?.kill().await?;
        self.pid = None;
        Ok(())
    }

    /// Starts it again after its end, on the same ports and data. Returns when it is ready.
    ///
    /// # Errors
    /// If it was not started here, or does not start again.
    pub async fn start_again(&mut self) -> Result<()> {
        let part = self.part()?;
        part.start().await?;
        self.pid = part.pid();
        ensure!(self.pid.is_some(), "it ended at once");
        Ok(())
    }

    /// Ends it in good order, and starts it again.
    ///
    /// # Errors
    /// If it was not started here, or does not start again.
    pub async fn restart(&mut self) -> Result<()> {
        let part = self.part()?;
        part.restart().await?;
        self.pid = part.pid();
        Ok(())
    }
}

/// A server that ends with this value.
#[derive(Debug)]
struct Started {
    // In this order: the process goes before its ports and its directory.
    part: Part,
    admin: SocketAddr,
    _ports: [Port; 3],
    directory: TempDir,
}

impl Drop for Started {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("the server's log is {}", self.part.log().display());
        }
    }
}
