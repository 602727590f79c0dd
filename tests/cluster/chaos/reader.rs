//! Readers that come back with their cursor, to any edge, until they have everything.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{Rng as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{Stage, pause};
use crate::sse::{Ask, Item, Stream};

/// How a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// As fast as it can, for as long as the stream lasts.
    Steady,
    /// As steadily, and at this edge if it can be had.
    At(usize),
    /// With pauses, and next to nothing is kept for it meanwhile.
    Slow,
    /// For a short time, then it goes and comes again.
    Restless,
}

/// The first word of the data of the event that ends a round in a topic, up to the topic.
pub(super) fn mark(round: u64) -> String {
    format!("mark.{round}.")
}

/// What a reader has heard since the last round, and how it fares.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) received: Vec<String>,
    /// The marks of the round that is coming to its end.
    marks: BTreeSet<String>,
    pub(super) opened: usize,
    /// For whoever has to find out why it waits.
    last: String,
}

/// A reader, seen from outside.
pub(super) struct Reader {
    pub(super) topics: Vec<String>,
    pub(super) manner: Manner,
    heard: Arc<Mutex<Heard>>,
    /// The last round of which it has the marks of all its topics.
    round: watch::Receiver<u64>,
    /// By shard, the last probe that it has heard.
    pub(super) probes: watch::Receiver<Vec<u64>>,
    task: JoinHandle<()>,
}

impl Reader {
    /// One that follows a user's inbox, if there is a user, and these topics.
    pub(super) fn start(
        stage: &Arc<Stage>,
        user: Option<String>,
        topics: Vec<String>,
        manner: Manner,
        rng: StdRng,
    ) -> Self {
        let heard = Arc::<Mutex<Heard>>::default();
        let (rounds, round) = watch::channel(0);
        let (probed, probes) = watch::channel(vec![0; stage.probes.len()]);
        let ask = Ask::topics(&topics).query("since", "earliest");
        let ask = match (&user, manner) {
            (Some(user), _) => ask.query("user", user),
            (None, Manner::Slow) => ask.receive_buffer(4 << 10),
            _ => ask,
        };
        let mut all = topics;
        all.extend(user.map(|user| format!("user:{user}")));
        let reading = Reading {
            stage: Arc::clone(stage),
            ask,
            topics: all.len(),
            manner,
            rng,
            heard: Arc::clone(&heard),
            rounds,
            probed,
            cursor: String::new(),
        };
        Self {
            topics: all,
            manner,
            heard,
            round,
            probes,
            task: tokio::spawn(reading.run()),
        }
    }

    /// Waits until it has all of a round, and takes what it heard.
    pub(super) async fn all_of(&mut self, round: u64) -> Vec<String> {
        let waited = async { self.round.wait_for(|&has| has >= round).await.map(drop) };
        match tokio::time::timeout(crate::PATIENCE, waited).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                let ended = (&mut self.task).await;
                panic!("a reader of {:?} ended: {ended:?}", self.topics);
            }
            Err(_) => {
                let (topics, manner) = (&self.topics, self.manner);
                let heard = self.heard();
                panic!(
                    "a {manner:?} reader of {topics:?} has no end of round {round}; it has {:?}, {}",
                    heard.marks, heard.last
                );
            }
        }
        std::mem::take(&mut self.heard().received)
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("whole")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task of a reader.
struct Reading {
    stage: Arc<Stage>,
    ask: Ask,
    topics: usize,
    manner: Manner,
    rng: StdRng,
    heard: Arc<Mutex<Heard>>,
    rounds: watch::Sender<u64>,
    probed: watch::Sender<Vec<u64>>,
    cursor: String,
}

impl Reading {
    async fn run(mut self) {
        loop {
            let edges = &self.stage.streaming;
            let any = self.rng.random_range(0..edges.len());
            let edge = match self.manner {
                // Elsewhere every other time: home may be gone.
                Manner::At(home) if self.heard().opened.is_multiple_of(2) => home,
                _ => any,
            };
            let http = edges[edge].http;
            self.heard().opened += 1;
            let opened = tokio::time::timeout(self.silence(), self.ask.clone().after(&self.cursor).open(http)).await;
            match opened {
                Ok(Ok(stream)) => {
                    assert_eq!(stream.status(), 200, "browsers never come back from anything else");
                    self.note(format!("it reads at edge {edge}"));
                    let stays = match self.manner {
                        Manner::Restless => false,
                        Manner::At(home) => home == edge,
                        Manner::Steady | Manner::Slow => true,
                    };
                    self.read(stream, stays).await;
                }
                failed => self.note(format!("edge {edge} does not answer: {:?}", failed.map(Result::err))),
            }
            let away = if self.manner == Manner::Restless {
                0..1_500
            } else {
                20..200
            };
            pause(&mut self.rng, away).await;
        }
    }

    /// How long a stream, which has a heartbeat every second, may be silent.
    fn silence(&self) -> Duration {
        Duration::from_secs(if matches!(self.manner, Manner::At(_)) { 3 } else { 6 })
    }

    async fn read(&mut self, mut stream: Stream, stays: bool) {
        let leaves = Instant::now() + Duration::from_millis(self.rng.random_range(50..3_000));
        let mut events = 0_u64;
        while stays || Instant::now() < leaves {
            let event = match tokio::time::timeout(self.silence(), stream.next()).await {
                Ok(Ok(Item::Event(event))) => event,
                Ok(Ok(_)) => continue,
                ended => return self.note(format!("the stream ended, or was silent: {ended:?}")),
            };
            assert_eq!(
                event.gap(),
                None,
                "after {:?}, at {}: {event:?}",
                self.cursor,
                self.heard().last
            );
            self.cursor = event.id;
            self.hear(event.data.split(' ').next().unwrap_or_default());
            events += 1;
            if self.manner == Manner::Slow && events.is_multiple_of(8) {
                pause(&mut self.rng, 50..200).await;
            }
        }
    }

    fn hear(&self, name: &str) {
        let mut heard = self.heard();
        heard.received.push(name.to_owned());
        if let Some(probe) = name.strip_prefix("probe.") {
            let (number, shard) = probe.split_once('.').expect("a probe's name");
            let (number, shard): (u64, usize) = (number.parse().expect("a number"), shard.parse().expect("a number"));
            self.probed.send_modify(|probes| probes[shard] = number);
        }
        let round = *self.rounds.borrow() + 1;
        if name.starts_with(&mark(round)) {
            heard.marks.insert(name.to_owned());
            if heard.marks.len() == self.topics {
                heard.marks.clear();
                self.rounds.send_replace(round);
            }
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("whole")
    }

    fn note(&self, last: String) {
        self.heard().last = format!("{last}; cursor {:?}", self.cursor);
    }
}
