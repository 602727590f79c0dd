//! Which server to connect to next, and when; and what is told of those that cannot be reached.

use std::{
    collections::HashSet,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_nats::{ReconnectToServer, Server, ServerAddr};
use tracing::{error, warn};

/// Nodes that lose the same server do not come to the next all at once.
const SPREAD: Duration = Duration::from_millis(100);
/// The wait after all servers were tried in vain, doubled each time up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(2);
/// A connection that lasted less does not count as one that worked.
const WORKED: Duration = Duration::from_secs(2);
/// What is told of one outage at most.
const TOLD: usize = 32;

/// Chooses among the servers.
pub(super) struct Servers {
    advice: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chosen: Option<Chosen>,
    /// How many servers there were.
    known: usize,
    /// The one to leave.
    avoid: Option<ServerAddr>,
    /// Attempts in vain since a connection worked.
    failures: usize,
    told: HashSet<String>,
}

struct Chosen {
    server: ServerAddr,
    /// How often it had failed by then.
    failed: usize,
    /// Since when it is connected.
    connected: Option<Instant>,
}

impl Servers {
    /// `advice` is what to do when a server refuses the credentials.
    pub(super) fn new(advice: &'static str) -> Self {
        Self {
            advice,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server that was chosen last, as a URL.
    pub(super) fn chosen(&self) -> Option<String> {
        Some(self.lock().chosen.as_ref()?.server.as_url_str().to_owned())
    }

    /// The chosen one is connected.
    pub(super) fn connected(&self) {
        let mut state = self.lock();
        state.told.clear();
        if let Some(chosen) = &mut state.chosen {
            chosen.connected = Some(Instant::now());
        }
    }

    /// Takes another one next time. Whether there is another.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.avoid = state.chosen.as_ref().map(|chosen| chosen.server.clone());
        state.known > 1
    }

    /// The next one, out of all.
    pub(super) fn next(&self, pool: &[Server]) -> Option<ReconnectToServer> {
        let mut state = self.lock();
        state.known = pool.len();
        let last = state.chosen.take();
        if let Some(last) = &last {
            match last.connected {
                Some(connected) if connected.elapsed() >= WORKED => state.failures = 0,
                Some(_) => state.failures += 1,
                None => {
                    state.failures += 1;
                    let entry = pool.iter().find(|entry| entry.addr == last.server);
                    if let Some(cause) = entry.and_then(|entry| cause(entry, last.failed)) {
                        state.tell(last.server.as_url_str(), cause, self.advice);
                    }
                }
            }
        }
        let entry = choose(pool, state.avoid.as_ref(), last.as_ref().map(|last| &last.server))?;
        if state.avoid.as_ref().is_some_and(|avoid| *avoid != entry.addr) {
            state.avoid = None;
        }
        state.chosen = Some(Chosen {
            server: entry.addr.clone(),
            failed: entry.failed_attempts,
            connected: None,
        });
        Some(ReconnectToServer {
            addr: entry.addr.clone(),
            delay: Some(wait(state.failures, pool.len()).mul_f64(rand::random_range(0.5..1.0))),
        })
    }
}

impl State {
    /// Once for each server and cause in an outage.
    fn tell(&mut self, server: &str, cause: &str, advice: &'static str) {
        if self.told.len() >= TOLD || !self.told.insert(format!("{server} {cause}")) {
            return;
        }
        if is_refusal(cause) {
            error!(server, cause, advice, "nats refuses this node, trying again");
        } else {
            warn!(server, cause, "nats cannot be reached, trying again");
        }
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers")
            .field("chosen", &self.chosen())
            .finish_non_exhaustive()
    }
}

/// Why a server that had failed so often before could not be connected to.
fn cause(server: &Server, failed: usize) -> Option<&str> {
    if server.failed_attempts > failed {
        server.last_error.as_deref()
    } else if server.did_connect {
        // It was connected, and lost before anyone took note of it.
        None
    } else {
        // The client does not count those.
        Some("its name cannot be resolved")
    }
}

/// Whether a server does not want this node, rather than cannot be reached.
fn is_refusal(cause: &str) -> bool {
    let cause = cause.to_ascii_lowercase();
    ["authorization", "authentication", "signing nonce"]
        .iter()
        .any(|words| cause.contains(words))
}

/// Any of those that failed least, but not the one to avoid if there is another. That the last one was lost, or could not be reached, is a
/// failure more than the client has counted.
fn choose<'a>(pool: &'a [Server], avoid: Option<&ServerAddr>, last: Option<&ServerAddr>) -> Option<&'a Server> {
    let is = |server: &Server, other: Option<&ServerAddr>| other.is_some_and(|other| *other == server.addr);
    pool.iter()
        .map(|server| {
            let failed = server.failed_attempts + usize::from(is(server, last));
            (is(server, avoid), failed, rand::random::<u32>(), server)
        })
        .min_by_key(|&(avoided, failed, order, _)| (avoided, failed, order))
        .map(|(.., server)| server)
}

/// How long to wait at most: hardly while there are servers that were not tried yet, then ever longer.
fn wait(failures: usize, servers: usize) -> Duration {
    if failures < servers.max(1) {
        return SPREAD;
    }
    let round = u32::try_from(failures / servers.max(1)).unwrap_or(u32::MAX) - 1;
    LAST_WAIT.min(FIRST_WAIT.saturating_mul(2_u32.saturating_pow(round)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, failed_attempts: usize) -> Server {
        Server {
            addr: url.parse().expect("an address"),
            failed_attempts,
            did_connect: false,
            is_discovered: false,
            last_error: (failed_attempts > 0).then(|| "timed out".to_owned()),
        }
    }

    #[test]
    fn those_that_failed_least_come_first() {
        let pool = [server("a", 2), server("b", 1), server("c", 2)];
        for _ in 0..20 {
            assert_eq!(choose(&pool, None, None).expect("one").addr.host(), "b");
        }
    }

    #[test]
    fn another_is_tried_before_the_one_that_was_lost() {
        let pool = [server("a", 0), server("b", 0)];
        for _ in 0..20 {
            let servers = Servers::new("");
            let first = servers.next(&pool).expect("one").addr;
            servers.connected();
            assert_ne!(servers.next(&pool).expect("one").addr, first);
        }
        // Not if the other has been away for long.
        let pool = [server("a", 0), server("b", 9)];
        let lost = "a".parse().expect("an address");
        assert_eq!(choose(&pool, None, Some(&lost)).expect("one").addr, lost);
    }

    #[test]
    fn the_one_to_leave_comes_last() {
        let servers = Servers::new("");
        let pool = [server("a", 0), server("b", 0), server("c", 5)];
        let first = servers.next(&pool).expect("one").addr;
        servers.connected();
        assert!(servers.leave());
        let second = servers.next(&pool).expect("one").addr;
        assert_ne!(first, second);
        assert_ne!(second.host(), "c");
        // Alone, it is taken again.
        let alone = [server("a", 0)];
        assert_eq!(servers.next(&alone).expect("one").addr.host(), "a");
        assert!(!servers.leave());
        assert_eq!(servers.next(&alone).expect("one").addr.host(), "a");
    }

    #[test]
    fn waits_grow_to_a_bound() {
        let waits: Vec<_> = (0..30).map(|failures| wait(failures, 3)).collect();
        assert!(
            waits.is_sorted() && waits[2] == SPREAD && waits[29] == LAST_WAIT,
            "{waits:?}"
        );
        assert_eq!(wait(usize::MAX, 1), LAST_WAIT);
    }

    #[test]
    fn refusals_are_told_from_absence() {
        assert!(is_refusal("authorization violation: nats: authorization violation"));
        assert!(is_refusal("failed signing nonce: AuthError(..)"));
        assert!(!is_refusal("IO error: Connection refused (os error 111)"));
    }
}
