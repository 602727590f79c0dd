//! What the process logs, so that tests can wait for it. Tests run at once: each looks for an address that is its own.

use std::{
    io,
    sync::{LazyLock, Mutex, PoisonError},
};

use tokio::sync::watch;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::nats::PATIENCE;

static LINES: LazyLock<watch::Sender<Vec<String>>> = LazyLock::new(|| watch::Sender::new(Vec::new()));

/// Begins to keep what is logged.
pub(crate) fn keep() {
    static KEPT: Mutex<bool> = Mutex::new(false);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::mem::replace(&mut *kept, true) {
        let filter = EnvFilter::new("tidings=debug,async_nats=debug");
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
        lines.with_writer(Writer).init();
    }
}

/// Waits for a line that has all these words.
pub(crate) async fn wait_for(words: &[&str]) -> String {
    let has_all = |line: &&String| words.iter().all(|word| line.contains(word));
    let mut lines = LINES.subscribe();
    let there = lines.wait_for(|lines| lines.iter().any(|line| has_all(&line)));
    match tokio::time::timeout(PATIENCE, there).await {
        Ok(lines) => lines.expect("kept").iter().find(has_all).expect("there").clone(),
        Err(_) => panic!("nobody logged {words:?}:\n{}", LINES.borrow().join("\n")),
    }
}

/// How many lines have all these words.
pub(crate) fn count(words: &[&str]) -> usize {
    let has_all = |line: &&String| words.iter().all(|word| line.contains(word));
    LINES.borrow().iter().filter(has_all).count()
}

struct Writer;

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

/// One line, kept when it is whole.
struct Line(Vec<u8>);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = String::from_utf8_lossy(&self.0).into_owned();
        LINES.send_modify(|lines| lines.push(line));
    }
}
