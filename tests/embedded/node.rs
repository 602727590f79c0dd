//! A node under test: the program in one of its roles as a process of its own, on loopback, with a data directory that goes with it.

use std::{
    ffi::OsString,
    fs::File,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::{oneshot, watch},
};

use crate::patiently;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tidings");

/// A command that runs the program without this machine's settings.
pub(crate) fn tidings() -> Command {
    cleaned(Command::new(PROGRAM))
}

fn cleaned(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    command
}

/// Which part of the system a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Role {
    /// All of it.
    #[default]
    Serve,
    /// The part with a disk, in a cluster.
    Ingest,
    /// The part with the streams, in a cluster.
    Edge,
}

impl Role {
    const fn command(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Ingest => "ingest",
            Self::Edge => "edge",
        }
    }
}

/// What stands for an address that a role does not have.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Where a node can be reached. A role that serves no streams has no address for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Streams.
    pub(crate) http: SocketAddr,
    /// Publishing.
    pub(crate) grpc: SocketAddr,
    /// Health.
    pub(crate) admin: SocketAddr,
}

impl Addresses {
    /// The URL of streams, for `tidings listen`.
    pub(crate) fn streams_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The URL of publishing.
    pub(crate) fn publish_url(&self) -> String {
        format!("http://{}", self.grpc)
    }
}

/// Ports that belong to a test for as long as it runs, also while its node is down: a connection of another test cannot be given one
/// meanwhile. They are bound and do not listen, which leaves the node free to, and has connections refused while it is down.
struct Ports {
    addresses: Addresses,
    _held: [Socket; 3],
}

impl Ports {
    fn take(role: Role) -> Self {
        let hold = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_reuse_address(true).expect("an option");
            socket
                .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
                .expect("a port");
            let address = socket.local_addr().expect("bound").as_socket().expect("an address");
            (address, socket)
        };
        let ((http, a), (grpc, b), (admin, c)) = (hold(), hold(), hold());
        let http = if role == Role::Ingest { NOWHERE } else { http };
        Self {
            addresses: Addresses { http, grpc, admin },
            _held: [a, b, c],
        }
    }
}

/// How a node is to be started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    role: Role,
    settings: Vec<(String, OsString)>,
    arguments: Vec<String>,
    /// Where its log is kept, beyond its restarts.
    log: Option<PathBuf>,
    /// A limit on the size of files, in blocks of 512 bytes.
    file_blocks: Option<u64>,
}

impl Setup {
    /// Everything as it is by default.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Everything as it is by default, in this role.
    pub(crate) fn role(role: Role) -> Self {
        Self {
            role,
            ..Self::default()
        }
    }

    /// With an argument on its command line.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With its log kept in this file too, all its starts in one.
    pub(crate) fn log_to(mut self, file: PathBuf) -> Self {
        self.log = Some(file);
        self
    }

    /// With a setting: `set("log.retention_age", "1s")`.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("TIDINGS_{}", key.to_uppercase().replace('.', "__"));
        self.settings.push((name, value.into()));
        self
    }

    /// With every write that makes a file longer than so many blocks of 512 bytes failing.
    pub(crate) const fn limit_files(mut self, blocks: u64) -> Self {
        self.file_blocks = Some(blocks);
        self
    }

    /// Starts a node with a new data directory.
    pub(crate) async fn start(self) -> Node {
        self.start_in(tempfile::tempdir().expect("a directory")).await
    }

    /// Starts a node with a new data directory within this one.
    pub(crate) async fn start_in(self, dir: TempDir) -> Node {
        let data = dir.path().join("data");
        let ports = Ports::take(self.role);
        let running = Running::start(&self, ports.addresses, &data)
            .await
            .unwrap_or_else(|failed| panic!("it does not start: {failed:?}"));
        Node {
            running,
            setup: self,
            ports,
            data,
            dir,
        }
    }

    /// Runs it with these arguments where it is not expected to start.
    pub(crate) async fn refused(self, arguments: &[&str]) -> Failed {
        let mut command = self.command();
        command.args(arguments);
        match Running::spawn(command, None).await {
            Err(failed) => failed,
            Ok(running) => panic!("it starts: {}", running.log()),
        }
    }

    /// Starts a node on ports that the kernel chooses, and ends it: where it said that it was.
    pub(crate) async fn ready_on_any_port(self) -> Addresses {
        let dir = tempfile::tempdir().expect("a directory");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let addresses = Addresses {
            http: any,
            grpc: any,
            admin: any,
        };
        let running = Running::start(&self, addresses, &dir.path().join("data")).await;
        running.expect("it starts").addresses
    }

    fn command(&self) -> Command {
        let mut command = match self.file_blocks {
            None => tidings(),
            Some(blocks) => {
                // SIGXFSZ ends a process, unless it is ignored: then writing fails instead, with EFBIG.
                let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
                let mut shell = cleaned(Command::new("sh"));
                shell.args(["-c", &script, PROGRAM]);
                shell
            }
        };
        command
            .arg(self.role.command())
            .args(&self.arguments)
            .env("TIDINGS_TELEMETRY__FORMAT", "json")
            // Two are the least that tell workers which share from workers which do not.
            .env("TIDINGS_HTTP__WORKERS", "2")
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null());
        command
    }
}

/// A node that did not start.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) status: ExitStatus,
    /// All it wrote on standard error.
    pub(crate) told: String,
}

/// A running process, and what it said.
#[derive(Debug)]
struct Running {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Its sender goes when standard error is at its end.
    said: watch::Receiver<()>,
    addresses: Addresses,
}

impl Running {
    async fn start(setup: &Setup, addresses: Addresses, data: &Path) -> Result<Self, Failed> {
        let mut command = setup.command();
        if setup.role != Role::Ingest {
            command.args(["--http", &addresses.http.to_string()]);
        }
        command.args(["--grpc", &addresses.grpc.to_string()]);
        command.args(["--admin", &addresses.admin.to_string()]);
        if setup.role != Role::Edge {
            command.arg("--data").arg(data);
        }
        let file = setup.log.as_ref().map(|file| {
            let file = File::options().create(true).append(true).open(file);
            file.expect("a file for the log")
        });
        Self::spawn(command, file).await
    }

    /// Starts it and waits until it says that it is ready, or ends.
    async fn spawn(mut command: Command, mut file: Option<File>) -> Result<Self, Failed> {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, is_ready) = oneshot::channel();
        let (saying, mut said) = watch::channel(());
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            let mut ready = Some(ready);
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(addresses) = addresses(&line)
                    && let Some(ready) = ready.take()
                {
                    let _ = ready.send(addresses);
                }
                if let Some(file) = &mut file {
                    writeln!(file, "{line}").expect("a log is written");
                }
                let mut kept = kept.lock().expect("whole");
                kept.push_str(&line);
                kept.push('\n');
                saying.send_replace(());
            }
        });
        if let Ok(addresses) = patiently("the node's start", is_ready).await {
            return Ok(Self {
                child,
                log,
                said,
                addresses,
            });
        }
        let status = patiently("the node's end", child.wait()).await.expect("a child");
        while said.changed().await.is_ok() {}
        let told = log.lock().expect("whole").clone();
        Err(Failed { status, told })
    }

    fn log(&self) -> String {
        self.log.lock().expect("whole").clone()
    }
}

/// The addresses in the log line that says `ready`, if this is it.
fn addresses(line: &str) -> Option<Addresses> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    (line["message"] == "ready").then_some(())?;
    Some(Addresses {
        http: address("http").unwrap_or(NOWHERE),
        grpc: address("grpc")?,
        admin: address("admin")?,
    })
}

/// A node. It is killed when this is dropped.
pub(crate) struct Node {
    // In this order: the process goes before its ports and its directory.
    running: Running,
    setup: Setup,
    ports: Ports,
    data: PathBuf,
    dir: TempDir,
}

impl Node {
    /// A node with everything as it is by default.
    pub(crate) async fn start() -> Self {
        Setup::new().start().await
    }

    /// Where it can be reached: the same after a restart.
    pub(crate) const fn addresses(&self) -> Addresses {
        self.ports.addresses
    }

    /// A directory that goes with the node.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// All it wrote on standard error since it was last started.
    pub(crate) fn log(&self) -> String {
        self.running.log()
    }

    /// Waits until it has logged this.
    pub(crate) async fn logs(&mut self, text: &str) {
        let logged = async {
            while !self.running.log().contains(text) {
                self.running.said.changed().await.expect("it runs");
            }
        };
        patiently(format_args!("{text:?} in the log"), logged).await;
    }

    /// Its memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory_of("VmRSS:")
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn most_memory(&self) -> u64 {
        self.memory_of("VmHWM:")
    }

    fn memory_of(&self, field: &str) -> u64 {
        let id = self.running.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .expect("a line");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1_024
    }

    /// `kill -9`. Returns when it is gone.
    pub(crate) async fn kill(&mut self) {
        self.running.child.kill().await.expect("it runs");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.running.child.id().expect("it runs");
        let id = Pid::from_raw(i32::try_from(id).expect("an id")).expect("an id");
        kill_process(id, signal).expect("it runs");
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        patiently("the node's end", self.running.child.wait())
            .await
            .expect("a child")
    }

    /// Starts it again after its end, on the same ports and data.
    pub(crate) async fn restart(&mut self) {
        let setup = self.setup.clone();
        self.restart_as(setup).await;
    }

    /// Starts it again after its end, on the same ports and data, with other settings.
    pub(crate) async fn restart_as(&mut self, setup: Setup) {
        self.running = Running::start(&setup, self.ports.addresses, &self.data)
            .await
            .unwrap_or_else(|failed| panic!("it does not start again: {failed:?}"));
        assert_eq!(self.running.addresses, self.ports.addresses);
        self.setup = setup;
    }

    /// `kill -9`, and up again.
    pub(crate) async fn crash(&mut self) {
        self.kill().await;
        self.restart().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (status, log) = (self.child.try_wait(), self.log());
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            eprintln!("the node has ended: {status:?}; it said last: {last:#?}");
        }
        // Gone before its directory is. It is waited for and left to be reaped by whom it belongs to.
        if let Some(id) = self.child.id()
            && self.child.start_kill().is_ok()
            && let Some(id) = Pid::from_raw(i32::try_from(id).unwrap_or_default())
        {
            let _ = waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
    }
}

/// How a process ended: its exit code, or the signal as shells have it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .expect("it ended")
}
