//! What the streams of a run are, told once to all processes that hold some: the stream of a number is the same wherever it is held.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{payload::Key, target::Tokens, template::Template};

/// What the streams of a run are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where streams are opened: stream `n` at `n mod` their number at first, anywhere when it comes back to one that is away.
    pub edges: Vec<SocketAddr>,
    /// How streams are asked for.
    pub template: Template,
    /// What each follows.
    pub follows: Follows,
    /// What its user shows, if the server asks.
    pub tokens: Option<Tokens>,
    /// Who reads slowly.
    pub slow: Option<Slow>,
    /// When one that was cut off comes back.
    pub comeback: Comeback,
    /// Whether what this service promises beyond the format is demanded.
    pub strict: bool,
}

impl Plan {
    /// A plan for streams of a Tidings node: each follows its inbox, comes back at once, and demands everything.
    #[must_use]
    pub fn new(edges: Vec<SocketAddr>, follows: Follows) -> Self {
        Self {
            edges,
            template: Template::tidings(),
            follows,
            tokens: None,
            slow: None,
            comeback: Comeback::default(),
            strict: true,
        }
    }
}

/// What each stream follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follows {
    /// Its inbox.
    pub inbox: bool,
    /// Topics that it shares: each with so many streams of neighbouring numbers, or, with 0, with all.
    pub shared: Vec<u32>,
}

impl Follows {
    /// Nothing but an inbox.
    #[must_use]
    pub const fn inbox() -> Self {
        Self {
            inbox: true,
            shared: Vec::new(),
        }
    }

    /// Nothing but one topic of all streams.
    #[must_use]
    pub fn one_topic() -> Self {
        Self {
            inbox: false,
            shared: vec![0],
        }
    }

    /// How many topics each stream follows.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.inbox) + self.shared.len()
    }

    /// The topics of a stream, its inbox first.
    pub fn keys(&self, stream: u32) -> impl Iterator<Item = Key> {
        let inbox = self.inbox.then_some(Key::Inbox(stream));
        let shared = (0_u32..)
            .zip(&self.shared)
            .map(move |(place, &members)| self.shared_key(place, members, stream));
        inbox.into_iter().chain(shared)
    }

    /// The place of a topic among those of a stream; none if it does not follow it.
    #[must_use]
    pub fn place(&self, stream: u32, key: Key) -> Option<usize> {
        self.keys(stream).position(|own| own == key)
    }

    /// All topics that some of these streams share.
    #[must_use]
    pub fn shared_keys(&self, streams: u32) -> Vec<Key> {
        let mut keys = Vec::new();
        for (place, &members) in (0_u32..).zip(&self.shared) {
            let groups = if members == 0 { 1 } else { streams.div_ceil(members) };
            keys.extend((0..groups).map(|group| self.shared_key(place, members, group * members)));
        }
        keys
    }

    fn shared_key(&self, place: u32, members: u32, stream: u32) -> Key {
        let group = stream.checked_div(members).unwrap_or_default();
        Key::Shared(group * u32::try_from(self.shared.len()).unwrap_or(u32::MAX) + place)
    }
}

/// Streams whose readers take their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// One in so many streams is slow.
    pub one_in: u32,
    /// How fast each of them reads, in bytes per second.
    pub bytes_per_second: u32,
}

/// When a stream that was cut off comes back: after a time of its own between these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comeback {
    /// At the earliest.
    pub after: Duration,
    /// At the latest.
    pub within: Duration,
    /// But not before the server wants it back (`retry:`), as browsers do.
    pub listens: bool,
}

impl Default for Comeback {
    fn default() -> Self {
        Self {
            after: Duration::ZERO,
            within: Duration::from_millis(500),
            listens: false,
        }
    }
}

/// How many events were published, by topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published(BTreeMap<Key, u32>);

impl Published {
    /// One more, which gets the next number of its topic.
    pub fn next(&mut self, key: Key) -> u32 {
        let count = self.0.entry(key).or_default();
        *count += 1;
        *count
    }

    /// How many there are of a topic.
    #[must_use]
    pub fn of(&self, key: Key) -> u32 {
        self.0.get(&key).copied().unwrap_or_default()
    }

    /// How many there are of all topics.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().map(|&count| u64::from(count)).sum()
    }

    /// Each topic with its events.
    pub fn iter(&self) -> impl Iterator<Item = (Key, u32)> {
        self.0.iter().map(|(&key, &count)| (key, count))
    }

    /// Those of another publisher, too: of other topics, since both would have given the same numbers.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in other.iter() {
            *self.0.entry(key).or_default() += count;
        }
    }
}

impl FromIterator<(Key, u32)> for Published {
    fn from_iter<I: IntoIterator<Item = (Key, u32)>>(counts: I) -> Self {
        Self(counts.into_iter().collect())
    }
}

impl Serialize for Published {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl<'de> Deserialize<'de> for Published {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<(Key, u32)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_topics_with_their_neighbours() {
        let follows = Follows {
            inbox: true,
            shared: vec![0, 100],
        };
        let keys = |stream| follows.keys(stream).collect::<Vec<_>>();
        assert_eq!(keys(0), [Key::Inbox(0), Key::Shared(0), Key::Shared(1)]);
        assert_eq!(keys(99)[1..], keys(0)[1..]);
        assert_eq!(keys(250), [Key::Inbox(250), Key::Shared(0), Key::Shared(5)]);
        assert_eq!(
            follows.shared_keys(250),
            [Key::Shared(0), Key::Shared(1), Key::Shared(3), Key::Shared(5)]
        );
        assert_eq!(follows.place(250, Key::Shared(5)), Some(2));
        assert_eq!(follows.place(250, Key::Inbox(251)), None);
    }

    #[test]
    fn what_was_published_is_counted_and_told() {
        let mut published = Published::default();
        assert_eq!(
            [Key::Inbox(3), Key::Shared(3), Key::Inbox(3)].map(|key| published.next(key)),
            [1, 1, 2]
        );
        let json = serde_json::to_string(&published).expect("JSON");
        let read: Published = serde_json::from_str(&json).expect("the same");
        assert_eq!((read.of(Key::Inbox(3)), read.total()), (2, 3));
        assert_eq!(read, published);
    }
}
