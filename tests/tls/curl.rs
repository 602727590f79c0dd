//! curl, as a client of streams and for whole answers.

use std::{net::SocketAddr, path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::patiently;

/// Which HTTP it is to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

impl Version {
    pub(crate) const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    const fn argument(self) -> &'static str {
        match self {
            Self::Http1 => "--http1.1",
            Self::Http2 => "--http2",
        }
    }

    /// How an answer begins.
    const fn status_line(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1 200",
            Self::Http2 => "HTTP/2 200",
        }
    }
}

fn curl(version: Version, ca: &Path) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "-N", "-i", version.argument(), "--cacert"])
        .arg(ca)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A stream that curl follows.
pub(crate) struct Stream {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) head: String,
}

impl Stream {
    /// Follows a topic, and waits for the head of the answer, which has to be in this version of HTTP.
    pub(crate) async fn open(version: Version, ca: &Path, address: SocketAddr, query: &str) -> Self {
        let url = format!("https://localhost:{}/v1/events?{query}", address.port());
        let mut child = curl(version, ca).arg(url).spawn().expect("curl is installed");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut stream = Self {
            child,
            lines,
            head: String::new(),
        };
        loop {
            let Some(line) = stream.line().await else {
                let mut told = String::new();
                let mut stderr = stream.child.stderr.take().expect("piped");
                stderr.read_to_string(&mut told).await.expect("text");
                panic!("no stream: {} {told}", stream.head);
            };
            if line.is_empty() {
                break;
            }
            stream.head.push_str(&line);
            stream.head.push('\n');
        }
        assert!(stream.head.starts_with(version.status_line()), "{}", stream.head);
        stream
    }

    async fn line(&mut self) -> Option<String> {
        let line = patiently("a line of the stream", self.lines.next_line()).await;
        line.expect("readable")
            .map(|line| line.trim_end_matches('\r').to_owned())
    }

    /// The data of the next event; `None` at the end of the stream.
    pub(crate) async fn data(&mut self) -> Option<String> {
        loop {
            let line = self.line().await?;
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(data.to_owned());
            }
        }
    }

    /// What else is on the stream until its end, and how curl ended.
    pub(crate) async fn end(mut self) -> (String, i32) {
        let mut rest = String::new();
        while let Some(line) = self.line().await {
            rest.push_str(&line);
            rest.push('\n');
        }
        let status = patiently("curl's end", self.child.wait()).await.expect("a child");
        (rest, status.code().expect("it ended by itself"))
    }
}

/// Asks for a path and answers all that comes: the head, a blank line, the body.
pub(crate) async fn get(version: Version, ca: &Path, url: &str, arguments: &[&str]) -> Result<String, String> {
    let output = curl(version, ca).args(arguments).arg(url).output();
    let output = patiently("curl's answer", output).await.expect("curl is installed");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("text"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
