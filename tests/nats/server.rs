//! Real NATS servers for tests, alone or as a cluster, each on a loopback address of its own so that ports never collide.
//!
//! `tests/nats/setup` installs the programs.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// How long a server may take to say that it is ready: a deadline, never waited for in full.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The newest, from PyPI.
    Newest,
    /// Debian's 2.9.
    Debian,
}

impl Version {
    /// Where it is; `None` if it could not be installed, which only Debian's may be.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"),
            PathBuf::from,
        );
        let cache = cache.join("tidings");
        match self {
            Self::Newest => {
                let program = cache.join("nats-server-2.15.1/bin/nats-server");
                assert!(
                    program.exists(),
                    "{} is missing: run tests/nats/setup",
                    program.display()
                );
                Some(program)
            }
            Self::Debian => {
                Some(cache.join("nats-server-debian/usr/sbin/nats-server")).filter(|program| program.exists())
            }
        }
    }
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    program: PathBuf,
    dir: tempfile::TempDir,
    address: Ipv4Addr,
    child: Option<Child>,
    log: Arc<Log>,
    /// What it said before it was last started.
    before: String,
}

impl Server {
    /// Where clients connect.
    pub(crate) const CLIENTS: u16 = 4222;
    /// Where the other servers of its cluster connect.
    pub(crate) const ROUTES: u16 = 6222;
    /// Where it tells of itself, over HTTP.
    pub(crate) const MONITOR: u16 = 8222;

    /// Starts a server alone, with JetStream; `settings` is more of its configuration file.
    pub(crate) fn start(version: Version, settings: &str) -> Option<Self> {
        Self::start_at(version, an_address(), settings)
    }

    /// Starts a server alone, at this address: one that a certificate is for, say.
    pub(crate) fn start_at(version: Version, address: Ipv4Addr, settings: &str) -> Option<Self> {
        let mut server = Self::prepare("alone", version.program()?, address, "", settings);
        server.launch();
        server.log.wait_for("Server is ready");
        Some(server)
    }

    fn prepare(name: &str, program: PathBuf, address: Ipv4Addr, cluster: &str, settings: &str) -> Self {
        let server = Self {
            name: name.to_owned(),
            program,
            dir: tempfile::tempdir().expect("a temporary directory"),
            address,
            child: None,
            log: Arc::default(),
            before: String::new(),
        };
        let text = format!(
            "server_name: {name}\nhost: {address}\nport: {}\nhttp: \"{address}:{}\"\njetstream {{ store_dir: \"{}\"\n{} }}\n{cluster}\n{settings}\n",
            Self::CLIENTS,
            Self::MONITOR,
            server.dir.path().join("jetstream").display(),
            // Servers from before 2.10 do not know it.
            if server.is_debian() {
                ""
            } else {
                "sync_interval: always"
            },
        );
        fs::write(server.config(), text).expect("written");
        server
    }

    fn is_debian(&self) -> bool {
        Version::Debian.program().is_some_and(|program| program == self.program)
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("server.conf")
    }

    fn launch(&mut self) {
        self.before = self.log();
        self.log = Arc::default();
        let mut child = Command::new(&self.program)
            .arg("-c")
            .arg(self.config())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("nats-server starts");
        let lines = BufReader::new(child.stderr.take().expect("piped"));
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                log.push(line);
            }
            log.end();
        });
        self.child = Some(child);
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub(crate) const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where clients connect, as a URL.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}:{}", self.address, Self::CLIENTS)
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Where its data is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it has said, in all its starts.
    pub(crate) fn log(&self) -> String {
        format!("{}{}\n", self.before, self.log.text())
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it in good order.
    pub(crate) fn terminate(&mut self) {
        self.signal("TERM");
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Starts it again on its data, after it has ended.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.launch();
        self.log.wait_for("Server is ready");
    }

    /// Sends it a signal: `STOP`, `CONT`, `TERM`, or `USR2` for lame duck mode.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().expect("it runs");
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid.to_string())
            .status();
        assert!(sent.expect("kill runs").success(), "kill -{signal} {pid}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Servers with JetStream that make one cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// They.
    pub(crate) servers: Vec<Server>,
}

impl Cluster {
    /// Starts so many, and waits until they have chosen a leader.
    pub(crate) fn start(version: Version, size: usize, settings: &str) -> Option<Self> {
        let addresses: Vec<_> = (0..size).map(|_| an_address()).collect();
        let route = |_, to: usize| format!("nats://{}:{}", addresses[to], Server::ROUTES);
        Self::start_at(version, &addresses, route, "", settings)
    }

    /// Starts one at each of these addresses, of which each reaches each other by the route that it is told; `cluster` is more of that block.
    pub(crate) fn start_at(
        version: Version,
        addresses: &[Ipv4Addr],
        route: impl Fn(usize, usize) -> String,
        cluster: &str,
        settings: &str,
    ) -> Option<Self> {
        let program = version.program()?;
        let mut servers = Vec::new();
        for (at, &address) in addresses.iter().enumerate() {
            let others = (0..addresses.len()).filter(|&other| other != at);
            let routes: Vec<_> = others.map(|other| format!("\"{}\"", route(at, other))).collect();
            let block = format!(
                "cluster {{ name: tests, host: {address}, port: {}, routes: [{}]\n{cluster} }}",
                Server::ROUTES,
                routes.join(", ")
            );
            servers.push(Server::prepare(
                &format!("n{at}"),
                program.clone(),
                address,
                &block,
                settings,
            ));
        }
        for server in &mut servers {
            server.launch();
        }
        for server in &servers {
            server.log.wait_for("Server is ready");
            // Each says so of itself or of another.
            server.log.wait_for("metadata leader");
        }
        Some(Self { servers })
    }

    /// Where clients connect: all of them.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }
}

/// A loopback address that nobody else uses.
pub(crate) fn an_address() -> Ipv4Addr {
    let [a, b, c]: [u8; 3] = rand::random();
    // Not in 127.0, which is everybody's.
    Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254))
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Log {
    fn push(&self, line: String) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
        self.more.notify_all();
    }

    fn end(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.more.notify_all();
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.join("\n")
    }

    fn wait_for(&self, words: &str) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let said = |lines: &(Vec<String>, bool)| lines.0.iter().any(|line| line.contains(words));
        let (lines, _) = self
            .more
            .wait_timeout_while(lines, PATIENCE, |lines| !said(lines) && !lines.1)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            said(&lines),
            "nats-server did not say {words:?}:\n{}",
            lines.0.join("\n")
        );
    }
}
