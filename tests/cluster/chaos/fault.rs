//! What goes wrong.

use std::{fmt, time::Duration};

use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};
use rustix::process::Signal;
use tokio::{task::block_in_place, time::Instant};

use super::recovery::{Probing, Recovery};
use crate::{
    link::State,
    node::Role,
    patiently,
    world::{Journal, Member, World, healthy, ready},
};

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of a node, and a start some time later.
    Kill(Part),
    /// SIGSTOP, and SIGCONT some seconds later.
    Stop(Part),
    /// `kill -9` of an ingest node, and a start without its data.
    Wipe,
    /// SIGTERM and a start, of every process in turn.
    RollingRestart,
    /// A node has no NATS for some seconds.
    Cut(Role),
    /// A NATS server reaches none of the others for some seconds, though nodes reach all.
    Isolate,
    /// Two NATS servers do not reach each other for some seconds, though the third reaches both.
    CutRoute,
}

/// A kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Edge,
    Ingest,
    /// The NATS server that leads the stream of some shard.
    Leader,
    /// One that does not.
    Follower,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(part) => write!(f, "kill-{part}"),
            Self::Stop(part) => write!(f, "stop-{part}"),
            Self::Wipe => f.write_str("wipe"),
            Self::RollingRestart => f.write_str("rolling-restart"),
            Self::Cut(Role::Edge) => f.write_str("cut-edge"),
            Self::Cut(_) => f.write_str("cut-ingest"),
            Self::Isolate => f.write_str("isolate"),
            Self::CutRoute => f.write_str("cut-route"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edge => "edge",
            Self::Ingest => "ingest",
            Self::Leader => "leader",
            Self::Follower => "follower",
        })
    }
}

/// Every kind that a cluster with this journal survives, in random order. `TIDINGS_CHAOS_FAULTS=kill-edge,wipe` leaves only these.
pub(super) fn deck(journal: Journal, rng: &mut StdRng) -> Vec<Fault> {
    let parts = [Part::Edge, Part::Ingest, Part::Leader, Part::Follower];
    let mut deck: Vec<_> = parts
        .into_iter()
        .flat_map(|part| [Fault::Kill(part), Fault::Stop(part)])
        .collect();
    deck.extend([
        Fault::RollingRestart,
        Fault::Cut(Role::Edge),
        Fault::Cut(Role::Ingest),
        Fault::Isolate,
        Fault::CutRoute,
    ]);
    // With the other journal the disk is the log.
    if journal == Journal::Jetstream {
        deck.push(Fault::Wipe);
    }
    if let Ok(only) = std::env::var("TIDINGS_CHAOS_FAULTS") {
        deck.retain(|fault| only.split(',').any(|name| name == fault.to_string()));
        assert!(!deck.is_empty(), "TIDINGS_CHAOS_FAULTS={only}: there is none of these");
    }
    deck.shuffle(rng);
    deck
}

/// Has it happen, and waits until everything works again.
pub(super) async fn happen(fault: Fault, world: &mut World, probing: &mut Probing, rng: &mut StdRng) -> Recovery {
    let begin = Instant::now();
    let (what, recovery) = match fault {
        Fault::Kill(Part::Edge) => crash(pick(&mut world.edges, rng), false, probing, rng).await,
        Fault::Kill(Part::Ingest) => crash(pick(&mut world.ingests, rng), false, probing, rng).await,
        Fault::Wipe => crash(pick(&mut world.ingests, rng), true, probing, rng).await,
        Fault::Stop(Part::Edge) => stop(pick(&mut world.edges, rng), probing, rng).await,
        Fault::Stop(Part::Ingest) => stop(pick(&mut world.ingests, rng), probing, rng).await,
        Fault::Kill(part) => crash_server(part, world, probing, rng).await,
        Fault::Stop(part) => stop_server(part, world, probing, rng).await,
        Fault::Cut(Role::Edge) => cut(pick(&mut world.edges, rng), probing, rng).await,
        Fault::Cut(_) => cut(pick(&mut world.ingests, rng), probing, rng).await,
        Fault::Isolate | Fault::CutRoute => cut_routes(fault == Fault::Isolate, world, probing, rng).await,
        Fault::RollingRestart => rolling_restart(world, probing).await,
    };
    world.ready().await;
    println!(
        "  {:15} {what}: {recovery}, all ready after {:.1} s",
        fault.to_string(),
        begin.elapsed().as_secs_f64()
    );
    recovery
}

fn pick<'a>(members: &'a mut [Member], rng: &mut StdRng) -> &'a mut Member {
    let at = rng.random_range(0..members.len());
    &mut members[at]
}

/// For how long a fault lasts.
async fn a_while(rng: &mut StdRng, milliseconds: std::ops::Range<u64>) -> String {
    let lasts = Duration::from_millis(rng.random_range(milliseconds));
    tokio::time::sleep(lasts).await;
    format!("for {:.1} s", lasts.as_secs_f64())
}

async fn crash(member: &mut Member, wipe: bool, probing: &mut Probing, rng: &mut StdRng) -> (String, Recovery) {
    member.node.kill().await;
    let recovery = probing.measure();
    if wipe {
        std::fs::remove_dir_all(member.node.data()).expect("it has data");
    }
    let gone = a_while(rng, 0..3_000).await;
    member.node.restart().await;
    (format!("{} gone {gone}", member.name), recovery.await)
}

async fn stop(member: &Member, probing: &mut Probing, rng: &mut StdRng) -> (String, Recovery) {
    member.node.signal(Signal::STOP);
    let recovery = probing.measure();
    let stopped = a_while(rng, 1_000..7_000).await;
    member.node.signal(Signal::CONT);
    (format!("{} stopped {stopped}", member.name), recovery.await)
}

/// A NATS server that leads a stream, or one that does not. Where there are no streams, any.
async fn server(part: Part, world: &World, rng: &mut StdRng) -> usize {
    let count = world.nats.servers.len();
    let leader = world.leader_of_a_stream(rng.random_range(0..1_000)).await;
    let any = rng.random_range(0..count);
    match (leader, part) {
        (Some(leader), Part::Leader) => leader,
        (Some(leader), _) => (leader + 1 + any % (count - 1)) % count,
        (None, _) => any,
    }
}

async fn crash_server(part: Part, world: &mut World, probing: &mut Probing, rng: &mut StdRng) -> (String, Recovery) {
    let at = server(part, world, rng).await;
    world.nats.servers[at].kill();
    let recovery = probing.measure();
    let gone = a_while(rng, 0..5_000).await;
    let server = &mut world.nats.servers[at];
    block_in_place(|| server.restart());
    healthy(server).await;
    (format!("NATS server {} gone {gone}", server.name()), recovery.await)
}

async fn stop_server(part: Part, world: &World, probing: &mut Probing, rng: &mut StdRng) -> (String, Recovery) {
    let server = &world.nats.servers[server(part, world, rng).await];
    server.signal("STOP");
    let recovery = probing.measure();
    let stopped = a_while(rng, 1_000..9_000).await;
    server.signal("CONT");
    healthy(server).await;
    (
        format!("NATS server {} stopped {stopped}", server.name()),
        recovery.await,
    )
}

/// Whether those who are cut off hear of it.
fn cut_state(rng: &mut StdRng) -> (State, &'static str) {
    if rng.random_bool(0.7) {
        (State::Hanging, "silently")
    } else {
        (State::Resetting, "by resets")
    }
}

async fn cut(member: &Member, probing: &mut Probing, rng: &mut StdRng) -> (String, Recovery) {
    let (state, how) = cut_state(rng);
    member.nats(state);
    let recovery = probing.measure();
    let lasted = a_while(rng, 1_000..9_000).await;
    member.nats(State::Whole);
    (
        format!("{} cut off from NATS {how} {lasted}", member.name),
        recovery.await,
    )
}

async fn cut_routes(isolate: bool, world: &World, probing: &mut Probing, rng: &mut StdRng) -> (String, Recovery) {
    let (state, how) = cut_state(rng);
    let count = world.nats.servers.len();
    let one = rng.random_range(0..count);
    let others: Vec<_> = (0..count).filter(|&other| other != one).collect();
    let cut = if isolate { &others[..] } else { &others[..1] };
    let set = |state| cut.iter().for_each(|&other| world.route(one, other, state));
    set(state);
    let recovery = probing.measure();
    let lasted = a_while(rng, 1_000..9_000).await;
    set(State::Whole);
    for server in &world.nats.servers {
        healthy(server).await;
    }
    let names: Vec<_> = cut.iter().map(|&other| world.nats.servers[other].name()).collect();
    let what = format!(
        "NATS server {} cut off from {} {how} {lasted}",
        world.nats.servers[one].name(),
        names.join(" and ")
    );
    (what, recovery.await)
}

/// In the order in which one would upgrade. What is measured begins with the end of it.
async fn rolling_restart(world: &mut World, probing: &mut Probing) -> (String, Recovery) {
    let begin = Instant::now();
    for server in &mut world.nats.servers {
        block_in_place(|| {
            server.terminate();
            server.restart();
        });
        healthy(server).await;
    }
    for member in world.ingests.iter_mut().chain(&mut world.edges) {
        member.node.signal(Signal::TERM);
        let status = patiently(format_args!("the end of {}", member.name), member.node.ended()).await;
        assert_eq!(status.code(), Some(0), "{}: {}", member.name, member.node.log());
        member.node.restart().await;
        ready(member.addresses()).await;
    }
    let took = begin.elapsed().as_secs_f64();
    (
        format!("everything, one after another, in {took:.1} s"),
        probing.measure().await,
    )
}
