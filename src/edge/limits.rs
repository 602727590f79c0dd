//! How much one peer, one user and everybody together may take, shared by all workers.
//!
//! What is over a limit is not refused: a browser's EventSource takes every status but 200 as final. It is *shed*: answered with a
//! `retry:` and the end of the stream, so that it comes back when there may be room.

mod files;
mod permits;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

pub use files::{connections_within, raise_file_limit};
use permits::Counted;
pub(super) use permits::{ConnectionPermit, Permits, UserPermit};

use crate::{
    addresses::{AddressLimits, AddressPermit, Addresses, OverAddress},
    auth::User,
    model::Topic,
    proxies::Client,
};

/// The limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Connections of everybody. A stream over HTTP/2 or gRPC counts as one.
    pub connections: usize,
    /// Connections without a stream: their first request is not there yet, or they have none under way.
    pub pending_connections: usize,
    /// Streams of one user.
    pub connections_per_user: usize,
    /// Streams of one user that catch up at the same time: that read what was published before they came.
    pub replays_per_user: usize,
    /// Connections of one peer address (of an IPv6 peer: its /64 network).
    pub connections_per_address: usize,
    /// Attempts to connect, per second and peer address.
    pub attempts_per_second_per_address: u32,
    /// Whether peers on this machine are free of the limits per address.
    pub exempt_loopback: bool,
}

/// What is in use.
#[derive(Debug)]
pub struct Limits {
    settings: Settings,
    open: AtomicUsize,
    shedding: AtomicUsize,
    addresses: Arc<Addresses>,
    users: Mutex<HashMap<Topic, Use>>,
}

/// What one user has.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    streams: u32,
    /// Those of them that catch up.
    replays: u32,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// Connections of everybody.
    #[error("this node has all the connections it can take")]
    Connections,
    /// Connections of one address.
    #[error("this address has all the connections it may have")]
    Address,
    /// Attempts per second of one address.
    #[error("this address connects too often")]
    Attempts,
    /// Streams of one user.
    #[error("this user has all the streams they may have")]
    User,
    /// Streams of one user that catch up.
    #[error("as many streams of this user are catching up as may at the same time")]
    Replays,
}

impl From<OverAddress> for Over {
    fn from(over: OverAddress) -> Self {
        match over {
            OverAddress::Connections => Self::Address,
            OverAddress::Attempts => Self::Attempts,
        }
    }
}

/// What becomes of a connection.
#[derive(Debug)]
pub(super) enum Admission {
    /// It is served.
    Served(ConnectionPermit),
    /// It is over a limit, and told to come back later.
    Shed(ConnectionPermit, Over),
    /// Even those who are to come back later are too many: it is closed at once, which a browser retries too.
    Refused,
}

impl Limits {
    /// How many are told at the same time to come back later: they are over and above `connections`, and need files too.
    pub(crate) const SHEDDING: usize = 128;

    /// Nothing is in use yet.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            addresses: Addresses::new(AddressLimits {
                connections: settings.connections_per_address,
                attempts_per_second: settings.attempts_per_second_per_address,
                exempt_loopback: settings.exempt_loopback,
            }),
            settings,
            open: AtomicUsize::new(0),
            shedding: AtomicUsize::new(0),
            users: Mutex::default(),
        })
    }

    /// A client connects.
    pub(super) fn connect(self: &Arc<Self>, client: Client, now: Instant) -> Admission {
        match self.admit(Some(client), now) {
            Ok(permit) => Admission::Served(permit),
            Err(over) => match take(&self.shedding, Self::SHEDDING) {
                true => Admission::Shed(self.permit(Counted::Shed), over),
                false => Admission::Refused,
            },
        }
    }

    /// A connection that is served, or the limit that it is over. One whose client nobody knows is free of the limits per address.
    pub(super) fn admit(self: &Arc<Self>, client: Option<Client>, now: Instant) -> Result<ConnectionPermit, Over> {
        if let Some(client) = client {
            self.attempt(client, now)?;
        }
        self.room(client)
    }

    /// The same, of one whose attempt was counted already.
    pub(super) fn room(self: &Arc<Self>, client: Option<Client>) -> Result<ConnectionPermit, Over> {
        if !take(&self.open, self.settings.connections) {
            return Err(Over::Connections);
        }
        // From here on the permit gives back what was taken.
        let mut permit = self.permit(Counted::Open);
        if let Some(client) = client {
            permit.address = self.address(client)?;
        }
        Ok(permit)
    }

    /// A client asks for one more stream on a connection that it has.
    pub(super) fn attempt(&self, client: Client, now: Instant) -> Result<(), Over> {
        Ok(self.addresses.attempt(client, now)?)
    }

    /// A client's share of its address, on a connection that it has not for itself.
    pub(super) fn address(&self, client: Client) -> Result<Option<AddressPermit>, Over> {
        Ok(self.addresses.connect(client)?)
    }

    /// A user opens a stream, and reads what was published before if it `replays`.
    pub(super) fn user(self: &Arc<Self>, user: &User, replays: bool) -> Result<UserPermit, Over> {
        let mut users = lock(&self.users);
        let had = users.get(user.inbox()).copied().unwrap_or_default();
        if had.streams as usize >= self.settings.connections_per_user {
            return Err(Over::User);
        }
        if replays && had.replays as usize >= self.settings.replays_per_user {
            return Err(Over::Replays);
        }
        let has = users.entry(user.inbox().clone()).or_default();
        has.streams += 1;
        has.replays += u32::from(replays);
        Ok(UserPermit::new(Arc::clone(self), user.inbox().clone(), replays))
    }

    fn permit(self: &Arc<Self>, counted: Counted) -> ConnectionPermit {
        ConnectionPermit::new(Arc::clone(self), counted)
    }
}

/// How long one who is shed or ended is to stay away: each somewhat else, so that they do not come back together.
pub(super) fn stay_away() -> Duration {
    Duration::from_millis(rand::random_range(1_000..=15_000))
}

/// How long one who is served is to wait should the stream break: up to half as much again as is set, each somewhat else, so that after
/// a crash they do not all come back together.
pub(super) fn come_back_after(retry: Duration) -> Duration {
    retry.mul_f64(rand::random_range(1.0..1.5))
}

fn take(counter: &AtomicUsize, max: usize) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1))
        .is_ok()
}

/// The counts are whole between any two statements: a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut Settings)) -> Arc<Limits> {
        let mut settings = Settings {
            connections: 100,
            pending_connections: 100,
            connections_per_user: 2,
            replays_per_user: 1,
            connections_per_address: 3,
            attempts_per_second_per_address: 1_000,
            exempt_loopback: true,
        };
        change(&mut settings);
        Limits::new(settings)
    }

    fn client(text: &str) -> Client {
        Client::direct(text.parse().expect("an address"))
    }

    #[test]
    fn what_is_over_the_limit_of_its_address_takes_nothing() {
        let limits = limits(|settings| settings.connections_per_address = 1);
        let now = Instant::now();
        let held = limits.admit(Some(client("192.0.2.1")), now).expect("room");
        assert_eq!(limits.admit(Some(client("192.0.2.1")), now).err(), Some(Over::Address));
        assert_eq!(limits.address(client("192.0.2.1")).err(), Some(Over::Address));
        assert!(limits.admit(Some(client("192.0.2.2")), now).is_ok());
        assert_eq!(limits.open.load(Ordering::Relaxed), 1);
        drop(held);
        assert!(limits.admit(Some(client("192.0.2.1")), now).is_ok());
        assert_eq!(limits.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn over_everything_is_shed_and_then_refused() {
        let limits = limits(|settings| settings.connections = 2);
        let now = Instant::now();
        let mut held = Vec::new();
        let shed = std::iter::repeat_n("shed", Limits::SHEDDING);
        for want in ["served"; 2].into_iter().chain(shed).chain(["refused"; 2]) {
            let admission = limits.connect(client("127.0.0.1"), now);
            let got = match &admission {
                Admission::Served(_) => "served",
                Admission::Shed(_, Over::Connections) => "shed",
                Admission::Shed(..) => "another limit",
                Admission::Refused => "refused",
            };
            assert_eq!(got, want);
            held.push(admission);
        }
        drop(held);
        assert_eq!(limits.shedding.load(Ordering::Relaxed), 0);
        assert!(limits.admit(None, now).is_ok());
    }

    #[test]
    fn a_user_has_their_share() {
        let limits = limits(|_| {});
        let (one, two) = (
            User::unverified("1").expect("valid"),
            User::unverified("2").expect("valid"),
        );
        let stream = |user, replays| limits.user(user, replays);
        let held = [stream(&one, false).expect("room"), stream(&one, false).expect("room")];
        assert_eq!(stream(&one, false).err(), Some(Over::User));
        assert!(stream(&two, false).is_ok());
        drop(held);
        assert!(stream(&one, false).is_ok());
        assert!(lock(&limits.users).is_empty());
    }

    #[test]
    fn a_user_catches_up_with_so_many_streams_at_a_time() {
        let limits = limits(|settings| settings.connections_per_user = 10);
        let (one, two) = (
            User::unverified("1").expect("valid"),
            User::unverified("2").expect("valid"),
        );
        let first = Permits::of_user(Some(limits.user(&one, true).expect("room")));
        assert_eq!(limits.user(&one, true).err(), Some(Over::Replays));
        assert!(limits.user(&one, false).is_ok() && limits.user(&two, true).is_ok());
        // Level, and only once; then by its end.
        first.level();
        first.level();
        let second = limits.user(&one, true).expect("room");
        assert_eq!(limits.user(&one, true).err(), Some(Over::Replays));
        drop(first);
        assert_eq!(limits.user(&one, true).err(), Some(Over::Replays));
        drop(second);
        assert!(lock(&limits.users).is_empty());
    }

    #[test]
    fn coming_back_is_spread_over_half_as_much_again() {
        let times: Vec<Duration> = (0..1_000).map(|_| come_back_after(Duration::from_secs(2))).collect();
        assert!(times.iter().all(|time| (2_000..=3_000).contains(&time.as_millis())));
        assert!(times.iter().max() > times.iter().min());
    }

    #[test]
    fn staying_away_is_1_to_15_seconds() {
        let times: Vec<Duration> = (0..1_000).map(|_| stay_away()).collect();
        assert!(times.iter().all(|time| (1..=15).contains(&time.as_secs())));
        assert!(times.iter().max() > times.iter().min());
    }
}
