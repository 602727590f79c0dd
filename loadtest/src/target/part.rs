//! A process that is started for a run: it can be killed and started again on the same ports and data, and ends with the run.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// How long a process may take to say that it is ready, or to end: a deadline, never waited for in full.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is shown of the log of a process that does not start.
const LINES: usize = 20;

/// How a process is started, each time.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    ready: fn(&str) -> bool,
}

impl Program {
    /// A program under this name, run in this directory, where its log is kept as `<name>.log`. `ready` finds the line by which it says that it is.
    ///
    /// # Errors
    /// If the path of the program cannot be made absolute.
    pub fn new(name: &str, path: &Path, directory: &Path, ready: fn(&str) -> bool) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            // It is started in another directory: a relative path would be lost there. One without a slash is looked for on the PATH.
            path: match path.components().count() {
                1 => path.to_owned(),
                _ => std::path::absolute(path)?,
            },
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: directory.to_owned(),
            ready,
        })
    }

    /// A `tidings` in this role (`serve`, `edge`, `ingest`), which says `ready` in a line of JSON.
    ///
    /// # Errors
    /// If the path of the program cannot be made absolute.
    pub fn tidings(name: &str, path: &Path, directory: &Path, role: &str) -> Result<Self> {
        let ready = |line: &str| {
            let said: Result<Value, _> = serde_json::from_str(line);
            said.is_ok_and(|said| said["message"] == "ready")
        };
        let program = Self::new(name, path, directory, ready)?;
        Ok(program.arguments([role]).set("telemetry.format", "json"))
    }

    /// With more arguments.
    #[must_use]
    pub fn arguments<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        self.arguments.extend(arguments);
        self
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With a setting of `tidings`: `http.heartbeat`, and its value as text or TOML.
    #[must_use]
    pub fn set(self, key: &str, value: &str) -> Self {
        let name = format!("TIDINGS_{}", key.to_uppercase().replace('.', "__"));
        self.variable(&name, value)
    }

    /// Where its log is kept: all its starts in one.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }

    fn command(&self) -> Command {
        let mut command = with_this_process(&self.path);
        for (name, _) in std::env::vars_os() {
            // Nothing of this machine's settings.
            if name.to_string_lossy().starts_with("TIDINGS_") {
                command.env_remove(name);
            }
        }
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

/// A command that ends when the thread ends that starts it, in whatever way: so that nothing is left behind by a run that is killed. Where there is
/// no `setpriv`, it is an ordinary one.
fn with_this_process(program: &Path) -> Command {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let setpriv = std::env::split_paths(&paths)
        .map(|directory| directory.join("setpriv"))
        .find(|path| path.is_file());
    let Some(setpriv) = setpriv else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    // It becomes the program: the process is the same.
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// A program that is started as often as one likes, once at a time. It is killed when dropped.
pub struct Part {
    program: Program,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Says that it is ready; ends without a word when the process closes its log.
    ready: Option<mpsc::Receiver<()>>,
}

impl Part {
    /// Not started yet.
    #[must_use]
    pub const fn new(program: Program) -> Self {
        Self { program, running: None }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.program.log()
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// Starts it, and does not wait for it to be ready.
    ///
    /// # Errors
    /// If it cannot be started, or runs.
    pub fn launch(&mut self) -> Result<()> {
        if self.running.is_some() {
            bail!("{} runs already", self.program.name);
        }
        let program = self.program.clone();
        let (started, child) = mpsc::channel();
        let (tell, ready) = mpsc::channel();
        // The thread that starts it is the one that keeps its log, and so ends no sooner than it.
        thread::Builder::new()
            .name(format!("log of {}", program.name))
            .stack_size(256 << 10)
            .spawn(move || keep_log(&program, &started, &tell))?;
        let child = child.recv().context("the thread of a log ended")?;
        let child = child.with_context(|| format!("cannot start {}", self.program.path.display()))?;
        self.running = Some(Running {
            child,
            ready: Some(ready),
        });
        Ok(())
    }

    /// Waits until it is ready, after [`Part::launch`]. Blocks the thread: see [`Part::ready`].
    ///
    /// # Errors
    /// If it ends, or is not ready in time: with the end of its log.
    pub fn ready_blocking(&mut self) -> Result<()> {
        match self.take_ready() {
            Some(ready) => self.judge(ready.recv_timeout(PATIENCE).is_ok()),
            None => Ok(()),
        }
    }

    /// Waits until it is ready, after [`Part::launch`].
    ///
    /// # Errors
    /// If it ends, or is not ready in time: with the end of its log.
    pub async fn ready(&mut self) -> Result<()> {
        match self.take_ready() {
            Some(ready) => {
                let waited = tokio::task::spawn_blocking(move || ready.recv_timeout(PATIENCE));
                self.judge(waited.await?.is_ok())
            }
            None => Ok(()),
        }
    }

    fn take_ready(&mut self) -> Option<mpsc::Receiver<()>> {
        self.running.as_mut().and_then(|running| running.ready.take())
    }

    fn judge(&mut self, ready: bool) -> Result<()> {
        if ready {
            return Ok(());
        }
        let ended = self.running.as_mut().and_then(|running| running.child.try_wait().ok()?);
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        let how = ended.map_or_else(|| "is not ready".to_owned(), |status| format!("ended with {status}"));
        bail!("{} {how}; it said last:\n{last}", self.program.name)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready().await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("{} does not run", self.program.name))?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("no process")?;
        kill_process(pid, signal).with_context(|| format!("cannot send a signal to {}", self.program.name))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// If it does not end in time, or does not run.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let name = &self.program.name;
        let running = self.running.take().with_context(|| format!("{name} does not run"))?;
        let mut child = running.child;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let waiting = tokio::task::spawn_blocking(move || child.wait());
        if let Ok(ended) = tokio::time::timeout(PATIENCE, waiting).await {
            return Ok(ended??);
        }
        if let Some(pid) = pid {
            kill_process(pid, Signal::KILL)?;
        }
        bail!("{name} does not end and was killed")
    }

    /// `kill -9`. Returns when it is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.ended().await.map(drop)
    }

    /// `kill -9`, and up again.
    ///
    /// # Errors
    /// If it does not start again.
    pub async fn crash(&mut self) -> Result<()> {
        self.kill().await?;
        self.start().await
    }

    /// Ends it in good order, and up again.
    ///
    /// # Errors
    /// If it does not end or does not start again.
    pub async fn restart(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.ended().await?;
        self.start().await
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("name", &self.program.name)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            // It may have ended by itself; nothing else can go wrong, and nothing would depend on it.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

fn keep_log(program: &Program, started: &mpsc::Sender<Result<Child>>, ready: &mpsc::Sender<()>) {
    let start = || {
        let log = File::options().create(true).append(true).open(program.log())?;
        let mut child = program.command().spawn()?;
        let lines = BufReader::new(child.stderr.take().context("no log")?);
        anyhow::Ok((child, lines, log))
    };
    let (mut lines, mut log) = match start() {
        Ok((child, lines, log)) => {
            let _ = started.send(Ok(child));
            (lines, log)
        }
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        // A disk that is full is no reason to stop reading: the process would wait for it.
        let _ = log.write_all(&line);
        if (program.ready)(&String::from_utf8_lossy(&line)) {
            let _ = ready.send(());
        }
        line.clear();
    }
}

/// Ports of the loopback that belong to a part for as long as this is there, also while it is down: nobody else is given one meanwhile. They are
/// bound and do not listen, which leaves the part free to, and has connections refused while it is down.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _held: Socket,
}

impl Port {
    /// A free one.
    ///
    /// # Errors
    /// If there is none.
    pub fn take() -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?.as_socket().context("no address")?;
        Ok(Self { address, _held: socket })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(directory: &Path, script: &str) -> Part {
        let program = Program::new("shell", Path::new("sh"), directory, |line| line.contains("ready"));
        Part::new(program.expect("a path").arguments(["-c", script]))
    }

    #[tokio::test]
    async fn a_part_is_killed_and_started_again_and_its_log_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut part = shell(dir.path(), "echo ready $$ >&2; exec sleep 1000");
        part.start().await.expect("ready");
        let first = part.pid().expect("it runs");
        part.launch().expect_err("it runs");
        part.crash().await.expect("ready again");
        let second = part.pid().expect("it runs");
        part.restart().await.expect("ready again");
        let log = fs::read_to_string(part.log()).expect("a log");
        let pids: Vec<_> = log.lines().map(|line| line.trim_start_matches("ready ")).collect();
        assert_eq!(
            pids,
            [first, second, part.pid().expect("it runs")].map(|pid| pid.to_string())
        );
        part.kill().await.expect("it runs");
        assert_eq!(part.pid(), None);
        part.kill().await.expect_err("it does not run");
    }

    #[tokio::test]
    async fn one_that_does_not_start_says_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = shell(dir.path(), "echo no disk >&2; exit 3")
            .start()
            .await
            .expect_err("it ends");
        assert!(error.to_string().contains("no disk"), "{error}");
        let program = Program::new("nothing", Path::new("/nowhere"), dir.path(), |line| line == "ready");
        let error = Part::new(program.expect("a path"))
            .start()
            .await
            .expect_err("there is none");
        assert!(error.to_string().contains("nowhere"), "{error:#}");
    }

    #[test]
    fn a_port_is_free_for_who_listens_on_it_and_for_nobody_else() {
        let port = Port::take().expect("a port");
        std::net::TcpStream::connect(port.address()).expect_err("nobody listens");
        std::net::TcpListener::bind(port.address()).expect("free to listen");
        assert_ne!(Port::take().expect("another").address(), port.address());
    }
}
