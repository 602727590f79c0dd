//! What only the bus over NATS promises: of servers that end, hang or lose, of messages that cannot be read, of streams that republish.

use std::{sync::Arc, time::Duration};

use async_nats::{
    RequestErrorKind,
    jetstream::{self, stream},
};
use futures::StreamExt as _;
use tidings::{
    bus::{Announcement, Bus, Digest, Line, NatsBus, Notice, nats::wire},
    model::{Epoch, Event, Seq, Shard, Slot, UnixMillis},
    nats::{Auth, Link, Nats, Settings},
};

use crate::{
    logs,
    nats::{Cluster, PATIENCE, Server, Version, connect, settings},
    world::topic,
};

const SLOT: Slot = Slot(5);

fn start(version: Version) -> Option<Server> {
    let server = Server::start(version, "");
    if server.is_none() {
        println!("skipped: there is no nats-server of {version:?}");
    }
    server
}

fn event(seq: Option<u64>) -> Event {
    Event::new(topic("t"), None, "x".into(), UnixMillis(1), seq.map(Seq))
}

fn announcement(seq: u64) -> Announcement {
    Announcement {
        shard: Shard(0),
        epoch: Epoch(1),
        slot: SLOT,
        prev: Seq(seq - 1),
        seq: Seq(seq),
        event: Arc::new(event(Some(seq))),
    }
}

const fn digest(now: u64) -> Digest {
    Digest {
        shard: Shard(0),
        epoch: Epoch(1),
        before: Seq(now),
        now: Seq(now),
        changed: Vec::new(),
    }
}

/// Takes notices until one is such.
async fn until(line: &mut dyn Line, is: impl Fn(&Notice) -> bool) -> Notice {
    let found = async {
        loop {
            let notice = line.next().await.expect("the bus is open");
            if is(&notice) {
                return notice;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("in time")
}

fn is_doubt(notice: &Notice) -> bool {
    matches!(notice, Notice::Unverified)
}

/// Announces the same until it is heard: a subscription takes a moment to be known everywhere.
async fn until_carried(bus: &NatsBus, line: &mut dyn Line, seq: u64) {
    let carried = until(
        line,
        |notice| matches!(notice, Notice::Announcement(heard) if heard.seq == Seq(seq)),
    );
    let announce = async {
        loop {
            bus.announce(&[announcement(seq)]);
            bus.digest(&digest(seq));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = carried => {}
        () = announce => {}
    }
}

/// A bus, and a line of it that is carried.
async fn carried(nats: &Nats) -> (NatsBus, Box<dyn Line>) {
    let bus = NatsBus::start(nats);
    let mut line = bus.open();
    line.follow(SLOT);
    until_carried(&bus, &mut *line, 1).await;
    (bus, line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_is_doubted_until_it_is_back() {
    let mut server = start(Version::Newest).expect("installed");
    let nats = connect(&settings(&[server.url()])).await;
    let (bus, mut line) = carried(&nats).await;
    server.kill();
    let mut link = nats.link();
    link.wait_for(|link: &Link| !link.up).await.expect("open");
    // Again and again, so that followers ask the log; and what is announced meanwhile holds up nobody.
    for _ in 0..3 {
        bus.announce(&[announcement(2)]);
        until(&mut *line, is_doubt).await;
    }
    server.restart();
    until_carried(&bus, &mut *line, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_server_is_left_for_another() {
    logs::keep();
    let cluster = Cluster::start(Version::Newest, 3, "").expect("installed");
    let nats = connect(&settings(&cluster.urls())).await;
    let (_bus, mut line) = carried(&nats).await;
    let name = nats.server().expect("connected").server_name;
    let (hung, well): (Vec<_>, Vec<_>) = cluster.servers.iter().partition(|server| server.name() == name);
    // Another node, on a server that is well, goes on to announce.
    let other = connect(&settings(&[well[0].url(), well[1].url()])).await;
    let other = NatsBus::start(&other);
    hung[0].signal("STOP");
    // Its end is not waited for: it says nothing.
    until(&mut *line, is_doubt).await;
    until_carried(&other, &mut *line, 2).await;
    nats.round_trip(PATIENCE).await.expect("there and back");
    assert_ne!(nats.server().expect("connected").server_name, name);
    hung[0].signal("CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_taken_for_a_server_that_is_cut_off() {
    logs::keep();
    let cluster = Cluster::start(Version::Newest, 3, "").expect("installed");
    let nats = connect(&settings(&cluster.urls())).await;
    let (bus, mut line) = carried(&nats).await;
    let (name, connects) = (
        nats.server().expect("connected").server_name,
        nats.link().borrow().connects,
    );
    // From here on nobody says a word, though all servers are well.
    let mut link = nats.link();
    let left = link.wait_for(|link: &Link| link.up && link.connects > connects);
    tokio::time::timeout(PATIENCE, left)
        .await
        .expect("in time")
        .expect("open");
    nats.round_trip(PATIENCE).await.expect("there and back");
    assert_ne!(nats.server().expect("connected").server_name, name);
    // Again and again, so that followers ask the log.
    for _ in 0..8 {
        until(&mut *line, is_doubt).await;
    }
    until_carried(&bus, &mut *line, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_of_the_client_are_doubted() {
    let server = start(Version::Newest).expect("installed");
    let nats = connect(&settings(&[server.url()])).await;
    let (_bus, mut line) = carried(&nats).await;
    // Nobody takes what comes here.
    let _subscriber = nats.client().subscribe("tests.flood").await.expect("open");
    let flood = async {
        loop {
            nats.client().publish("tests.flood", "x".into()).await.expect("open");
        }
    };
    tokio::select! {
        _ = until(&mut *line, is_doubt) => {}
        () = flood => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_dropped() {
    logs::keep();
    let server = start(Version::Newest).expect("installed");
    let nats = connect(&settings(&[server.url()])).await;
    let (bus, mut line) = carried(&nats).await;
    for subject in ["tests.slot.5", "tests.once.5", "tests.digest.0"] {
        nats.client()
            .publish(subject, vec![0xff; 10].into())
            .await
            .expect("open");
    }
    logs::wait_for(&["cannot be read", "tests.slot.5"]).await;
    until_carried(&bus, &mut *line, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_nobody_follows_is_not_subscribed_to() {
    let server = start(Version::Newest).expect("installed");
    let nats = connect(&settings(&[server.url()])).await;
    let (bus, mut line) = carried(&nats).await;
    let mut other = bus.open();
    other.follow(SLOT);
    line.unfollow(SLOT);
    until_carried(&bus, &mut *other, 2).await;
    drop(other);
    // Nobody answers a request there. As long as somebody listens it takes its time; else the server says so.
    let subject = nats.subjects().slot(SLOT);
    let nobody = async {
        loop {
            let request = async_nats::Request::new().timeout(Some(Duration::from_millis(50)));
            let asked = nats.client().send_request(subject.clone(), request).await;
            if asked.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, nobody).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_leaves_nothing_behind() {
    const SENT: u64 = 10_000;
    let server = start(Version::Newest).expect("installed");
    let nats = connect(&settings(&[server.url()])).await;
    let heard = connect(&settings(&[server.url()])).await;
    let mut subscriber = heard.client().subscribe("tests.slot.5").await.expect("open");
    heard.round_trip(PATIENCE).await.expect("there and back");
    let bus = NatsBus::start(&nats);
    for seq in 1..=SENT {
        bus.announce(&[announcement(seq)]);
    }
    bus.flush(PATIENCE).await.expect("in time");
    drop((bus, nats));
    let all = async {
        for seq in 1..=SENT {
            let message = subscriber.next().await.expect("open");
            let heard = wire::decode_announcement(SLOT, None, &message.payload).expect("an announcement");
            assert_eq!(heard.seq, Seq(seq));
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clusters_own_subjects_are_permission_enough() {
    let users = "authorization { users: [ { user: t, password: t, permissions: { publish: \"tests.>\", subscribe: \"tests.>\" } } ] }";
    let server = Server::start(Version::Newest, users).expect("installed");
    let settings = Settings {
        auth: Auth::Password {
            user: "t".to_owned(),
            password: "t".into(),
        },
        ..settings(&[server.url()])
    };
    let nats = connect(&settings).await;
    nats.round_trip(PATIENCE).await.expect("there and back");
    let _ = carried(&nats).await;
}

async fn a_stream_republishes(version: Version) {
    let Some(server) = start(version) else { return };
    let nats = connect(&settings(&[server.url()])).await;
    let (_bus, mut line) = carried(&nats).await;
    let subjects = nats.subjects();
    let streams = jetstream::new(nats.client().clone());
    streams
        .create_stream(stream::Config {
            name: subjects.stream(Shard(0)),
            subjects: vec![subjects.logs(Shard(0)).to_string()],
            republish: Some(stream::Republish {
                source: subjects.logs(Shard(0)).to_string(),
                destination: "tests.slot.{{wildcard(1)}}".to_owned(),
                headers_only: false,
            }),
            ..stream::Config::default()
        })
        .await
        .expect("created");
    for slot in [SLOT, Slot(6), SLOT] {
        let stored = wire::encode_for_stream(Shard(0), Epoch(9), &event(None));
        let stored = streams
            .publish(subjects.log(Shard(0), slot), stored)
            .await
            .expect("sent");
        stored.await.expect("stored");
    }
    for (prev, seq) in [(0, 1), (1, 3)] {
        let of_stream = |notice: &Notice| matches!(notice, Notice::Announcement(heard) if heard.epoch == Epoch(9));
        let Notice::Announcement(heard) = until(&mut *line, of_stream).await else {
            unreachable!("an announcement");
        };
        let expected = Announcement {
            epoch: Epoch(9),
            prev: Seq(prev),
            ..announcement(seq)
        };
        assert_eq!(heard, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_republishes_with_sequences() {
    a_stream_republishes(Version::Newest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debians_republishes_with_sequences() {
    a_stream_republishes(Version::Debian).await;
}
