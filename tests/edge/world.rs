//! A log and a bus in memory, and an edge on top of them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::{BoxFuture, FutureExt as _};
use tidings::{
    auth::Auth,
    bus::{Announcement, Bus, Digest, Line, Notice},
    edge::{Edge, EdgeHandle, Listeners, Routes, Settings, limits},
    hub::HubSettings,
    log::{Heads, Located, Log, Page, ReadError, Replay, ReplayRequest},
    model::{Epoch, Event, EventType, Layout, Seq, Shard, Slot, Topic, UnixMillis},
};
use tokio::sync::{mpsc, watch};

const EPOCH: Epoch = Epoch(7);

/// One event, as the log keeps it.
#[derive(Clone)]
struct Kept {
    topic: Topic,
    event_type: Option<EventType>,
    data: Arc<str>,
    seq: Seq,
}

impl Kept {
    fn event(&self) -> Arc<Event> {
        Arc::new(Event::new(
            self.topic.clone(),
            self.event_type.clone(),
            Arc::clone(&self.data),
            UnixMillis(self.seq.0),
            Some(self.seq),
        ))
    }
}

/// Everything that was published, and who hears of it.
#[derive(Default)]
pub(crate) struct World {
    kept: Mutex<Vec<Kept>>,
    lines: Mutex<Vec<mpsc::UnboundedSender<Notice>>>,
    announced: Mutex<Vec<Weak<Event>>>,
    pub(crate) replays: AtomicUsize,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn publish(&self, topic: &str, event_type: Option<&str>, data: &str) {
        let mut kept = self.kept.lock().expect("not poisoned");
        let last = kept.last().map_or(Seq::ZERO, |kept| kept.seq);
        let new = Kept {
            topic: Topic::parse(topic).expect("a topic"),
            event_type: event_type.map(|text| EventType::parse(text).expect("a type")),
            data: data.into(),
            seq: last.next(),
        };
        let event = new.event();
        kept.push(new);
        self.announced
            .lock()
            .expect("not poisoned")
            .push(Arc::downgrade(&event));
        let announcement = Announcement {
            shard: Shard(0),
            epoch: EPOCH,
            slot: Slot(0),
            prev: last,
            seq: last.next(),
            event,
        };
        self.tell(&Notice::Announcement(announcement));
    }

    /// How many of the announced events somebody still holds.
    pub(crate) fn held(&self) -> usize {
        let announced = self.announced.lock().expect("not poisoned");
        announced.iter().filter(|event| event.strong_count() > 0).count()
    }

    fn tell(&self, notice: &Notice) {
        let lines = self.lines.lock().expect("not poisoned");
        for line in &*lines {
            // A worker that has stopped hears nothing.
            let _ = line.send(notice.clone());
        }
    }

    fn page(&self, request: &ReplayRequest) -> Replay {
        self.replays.fetch_add(1, Ordering::Relaxed);
        let kept = self.kept.lock().expect("not poisoned");
        let last = kept.last().map_or(Seq::ZERO, |kept| kept.seq);
        if request.epoch != EPOCH || request.topics.iter().any(|(_, after)| *after > last) {
            return Replay::Forked { epoch: EPOCH, last };
        }
        let wanted: HashMap<&str, Seq> = request
            .topics
            .iter()
            .map(|(topic, after)| (topic.as_str(), *after))
            .collect();
        let (mut events, mut bytes, mut up_to) = (Vec::new(), 0, last);
        for kept in &*kept {
            if wanted.get(kept.topic.as_str()).is_some_and(|after| kept.seq > *after) {
                events.push(kept.event());
                bytes += kept.data.len();
                if events.len() == request.max_events || bytes >= request.max_bytes {
                    up_to = kept.seq;
                    break;
                }
            }
        }
        Replay::Page(Page {
            epoch: EPOCH,
            events,
            up_to,
        })
    }
}

impl Log for World {
    fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
        let last = self
            .kept
            .lock()
            .expect("not poisoned")
            .last()
            .map_or(Seq::ZERO, |kept| kept.seq);
        let heads = Heads {
            shard,
            epoch: EPOCH,
            last,
            floor: Seq(1),
            slots: Arc::new([(Slot(0), last)].into()),
        };
        async { Ok(heads) }.boxed()
    }

    fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        let replay = self.page(&request);
        async { Ok(replay) }.boxed()
    }

    fn locate(&self, _: Shard, time: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
        let located = Located {
            epoch: EPOCH,
            after: Seq(time.0.saturating_sub(1)),
        };
        async move { Ok(located) }.boxed()
    }
}

impl Bus for World {
    fn announce(&self, announcements: &[Announcement]) {
        for announcement in announcements {
            self.tell(&Notice::Announcement(announcement.clone()));
        }
    }

    fn digest(&self, digest: &Digest) {
        self.tell(&Notice::Digest(Arc::new(digest.clone())));
    }

    fn ephemeral(&self, _: Slot, event: Arc<Event>) {
        self.tell(&Notice::Ephemeral(event));
    }

    fn open(&self) -> Box<dyn Line> {
        let (line, heard) = mpsc::unbounded_channel();
        self.lines.lock().expect("not poisoned").push(line);
        Box::new(Heard(heard))
    }
}

struct Heard(mpsc::UnboundedReceiver<Notice>);

impl Line for Heard {
    fn follow(&mut self, _: Slot) {}

    fn unfollow(&mut self, _: Slot) {}

    fn next(&mut self) -> BoxFuture<'_, Option<Notice>> {
        self.0.recv().boxed()
    }
}

/// How an edge under test differs from the usual.
pub(crate) struct Options {
    pub(crate) workers: usize,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) settings: Settings,
    pub(crate) limits: limits::Settings,
    pub(crate) hub: HubSettings,
    pub(crate) routes: watch::Receiver<Arc<Routes>>,
    pub(crate) auth: Arc<Auth>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 2,
            send_buffer: None,
            settings: Settings::default(),
            limits: limits::Settings {
                connections: 1_000,
                pending_connections: 1_000,
                connections_per_user: 100,
                replays_per_user: 100,
                connections_per_address: 1_000,
                attempts_per_second_per_address: 100,
                exempt_loopback: true,
            },
            hub: HubSettings::default(),
            routes: Routes::alone(Layout::EMBEDDED, "edge", None).forever(),
            auth: Arc::new(Auth::open()),
        }
    }
}

/// Starts an edge on a free port.
pub(crate) fn start(world: &Arc<World>, options: Options) -> EdgeHandle {
    start_on(world.clone(), world.clone(), options)
}

/// Starts an edge with these settings, in a world where nothing happens.
pub(crate) fn start_with(settings: Settings) -> EdgeHandle {
    let options = Options {
        settings,
        ..Options::default()
    };
    start(&World::new(), options)
}

pub(crate) fn start_on(log: Arc<dyn Log>, bus: Arc<dyn Bus>, options: Options) -> EdgeHandle {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let workers = NonZeroUsize::new(options.workers).expect("at least one");
    let listeners = Listeners::bind(any, workers, options.send_buffer).expect("loopback");
    let edge = Edge {
        layout: Layout::EMBEDDED,
        settings: options.settings,
        limits: options.limits,
        hub: options.hub,
        log,
        bus,
        routes: options.routes,
        auth: options.auth,
        tls: None,
    };
    edge.start(listeners).expect("threads")
}
