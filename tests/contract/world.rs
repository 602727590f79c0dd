//! Where a suite sets up what it tests, and what it says to it.

use std::{future::Future, sync::Arc, time::Duration};

use tidings::{
    bus::Bus,
    journal::{Journal, Receipt},
    log::{Log, Page, Replay, ReplayRequest, Retention},
    model::{Event, Layout, Publish, PublishKey, Seq, Shard, Slot, Topic, UnixMillis},
};

/// The one shard of every world.
pub(crate) const SHARD: Shard = Shard(0);
/// How long every world remembers keys.
pub(crate) const KEY_WINDOW: Duration = Duration::from_secs(600);

/// An implementation of journal, log and bus over one shard whose data outlives its processes, with a clock that only the test moves.
pub(crate) trait World: Send + Sync {
    /// Its layout: several slots, one shard.
    fn layout(&self) -> Layout;

    /// Starts a process on the data.
    fn start(&self) -> impl Future<Output = Node> + Send;

    /// Ends it.
    fn stop(&self, node: Node) -> impl Future<Output = ()> + Send;

    /// Whether its log reads a copy, which cannot tell a position that was never issued from one it has yet to come to.
    fn may_lag(&self) -> bool {
        false
    }

    /// Sets the clock.
    fn set_time(&self, now: UnixMillis);

    /// Applies a retention, as of the clock's time.
    fn retain(&self, node: &Node, retention: Retention) -> impl Future<Output = ()> + Send;
}

/// One process.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) bus: Arc<dyn Bus>,
}

impl Node {
    /// Appends, and waits until it is durable.
    pub(crate) async fn append(&self, publish: Publish) -> Receipt {
        let ticket = self.journal.append(publish).await.expect("a place in the order");
        ticket.await.expect("durable")
    }

    /// Everything of some topics, in pages of the given size.
    pub(crate) async fn read(&self, topics: &[Topic], max_events: usize) -> Vec<Arc<Event>> {
        let heads = self.log.heads(SHARD).await.expect("heads");
        let (mut after, mut events) = (Seq(heads.floor.0 - 1), Vec::new());
        while after < heads.last {
            let request = ReplayRequest {
                shard: SHARD,
                epoch: heads.epoch,
                topics: topics.iter().map(|topic| (topic.clone(), after)).collect(),
                max_events,
                max_bytes: usize::MAX,
            };
            let page = self.page(request).await;
            assert!(page.up_to > after, "a page goes on");
            after = page.up_to;
            events.extend(page.events);
        }
        events
    }

    /// A page, and nothing else.
    pub(crate) async fn page(&self, request: ReplayRequest) -> Page {
        match self.log.replay(request).await.expect("read") {
            Replay::Page(page) => page,
            other => panic!("no page: {other:?}"),
        }
    }
}

pub(crate) fn topic(text: &str) -> Topic {
    Topic::parse(text).expect("a topic")
}

pub(crate) fn slot(layout: Layout, topic: &Topic) -> Slot {
    Slot(layout.slot(topic.as_str()))
}

pub(crate) fn publish(topics: &[&str], data: &str) -> Publish {
    Publish {
        topics: topics.iter().map(|text| topic(text)).collect(),
        event_type: None,
        data: data.into(),
        key: None,
        deadline: None,
    }
}

pub(crate) fn keyed(topics: &[&str], data: &str, key: &str) -> Publish {
    Publish {
        key: Some(PublishKey::parse(key).expect("a key")),
        ..publish(topics, data)
    }
}
