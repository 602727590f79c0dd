use std::{
    collections::HashSet,
    io::Write as _,
    net::Ipv4Addr,
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
};

use proptest::prelude::*;
use tokio::{
    io::{AsyncWriteExt as _, copy, sink},
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use super::*;
use crate::{
    edge::{
        Settings,
        carrier::{Carrier, End},
        streams::{Now, Streams, Terms},
        wheel::Tick,
    },
    model::UnixMillis,
};

/// Only what hangs takes as long.
const GUARD: Duration = Duration::from_secs(30);

/// A connection: the end that is adopted, and its peer's.
async fn pair() -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (peer, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    (accepted.unwrap().0, peer.unwrap())
}

/// Gives turns while a test plays.
async fn attend<T>(
    (sockets, hearing): (&Sockets, Hearing),
    turn: impl Fn(Key, Ready),
    play: impl Future<Output = T>,
) -> T {
    let both = async {
        tokio::select! {
            error = sockets.attend(hearing, turn) => panic!("nothing is heard any more: {error}"),
            played = play => played,
        }
    };
    tokio::time::timeout(GUARD, both).await.expect("every turn comes")
}

/// Gives turns while a test plays that is told of each.
async fn told<T>(heard: (&Sockets, Hearing), play: impl AsyncFnOnce(&mut UnboundedReceiver<(Key, Ready)>) -> T) -> T {
    let (tell, mut turns) = unbounded_channel();
    attend(heard, |key, ready| tell.send((key, ready)).unwrap(), play(&mut turns)).await
}

/// Waits until a stream has a turn that has this to say.
async fn until(turns: &mut UnboundedReceiver<(Key, Ready)>, key: Key, said: impl Fn(Ready) -> bool) {
    loop {
        let (whose, ready) = turns.recv().await.expect("turns are given");
        if whose == key && said(ready) {
            return;
        }
    }
}

proptest! {
    #[test]
    fn a_key_survives_the_kernel(index: u32, generation: u32) {
        let original = Key { index, generation };
        prop_assert_eq!(key(token(original)), original);
    }
}

#[tokio::test]
async fn more_than_are_heard_at_once_all_have_their_turn() {
    for count in [TURNS, TURNS + TURNS / 2] {
        let (sockets, hearing) = sockets().unwrap();
        let mut pairs = Vec::new();
        for index in 0..count as u32 {
            let (socket, mut peer) = pair().await;
            peer.write_all(b"x").await.unwrap();
            socket.readable().await.unwrap();
            pairs.push((Key::test(index), socket, peer));
        }
        // All at once: the runtime hears of it once.
        let mut missing = HashSet::new();
        let mut open = Vec::new();
        for (key, socket, peer) in pairs {
            open.push((sockets.adopt(key, socket).unwrap(), peer));
            missing.insert(key.index);
        }
        told((&sockets, hearing), async |turns| {
            while !missing.is_empty() {
                let (key, ready) = turns.recv().await.unwrap();
                if ready.read && ready.write {
                    missing.remove(&key.index);
                }
            }
            // And once they have, it goes on: what comes now is heard.
            for (index, (_, peer)) in open.iter_mut().enumerate() {
                peer.shutdown().await.unwrap();
                until(turns, Key::test(index as u32), |ready| ready.closed).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn what_came_before_it_was_adopted_is_told() {
    let (sockets, hearing) = sockets().unwrap();
    let (spoken, gone) = (Key::test(0), Key::test(1));
    let (socket, mut peer) = pair().await;
    peer.write_all(b"x").await.unwrap();
    assert_eq!(socket.peek(&mut [0]).await.unwrap(), 1);
    let _spoken = sockets.adopt(spoken, socket).unwrap();
    let (socket, without_words) = pair().await;
    drop(without_words);
    assert_eq!(socket.peek(&mut [0]).await.unwrap(), 0);
    let _gone = sockets.adopt(gone, socket).unwrap();
    told((&sockets, hearing), async |turns| {
        let mut missing = vec![spoken, gone];
        while !missing.is_empty() {
            let (key, ready) = turns.recv().await.expect("turns are given");
            assert!(ready.read && ready.closed == (key == gone), "{key:?}: {ready:?}");
            missing.retain(|other| *other != key);
        }
    })
    .await;
}

struct Silent;

impl Carrier for Silent {
    fn last_sent(&self) -> Tick {
        Tick::default()
    }

    fn begin(&self) {}

    fn heartbeat(&self) {}

    fn expiring(&self, _: Duration) {}

    fn end(&self, _: End) {}

    fn abandon(&self, _: End) {}
}

/// Two are heard at once; in the first one's turn the other is over, and its place is taken. What was heard of it is not the newcomer's.
#[tokio::test]
async fn what_was_heard_of_another_before_is_passed_over() {
    let (sockets, hearing) = sockets().unwrap();
    let streams = RefCell::new(Streams::new(&Settings::default(), Arc::new(AtomicUsize::new(0))));
    let enter = || {
        let now = Now {
            tick: Tick::default(),
            wall: UnixMillis::now(),
        };
        streams
            .borrow_mut()
            .enter(Rc::new(Silent), Terms::default(), now, |_| false)
    };
    let mut open = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..2 {
        let (socket, peer) = pair().await;
        let key = enter();
        open.push((key, sockets.adopt(key, socket).unwrap()));
        peers.push(peer);
    }
    let (newcomer, mut its_peer) = pair().await;
    its_peer.write_all(b"x").await.unwrap();
    newcomer.readable().await.unwrap();
    let (newcomer, open) = (Cell::new(Some(newcomer)), RefCell::new(open));
    let (tell, mut turns) = unbounded_channel();
    let turn = |key: Key, ready: Ready| {
        if let Some(socket) = newcomer.take() {
            let other = open.borrow().iter().position(|(other, _)| *other != key).unwrap();
            let (left, closed) = open.borrow_mut().remove(other);
            drop(closed);
            streams.borrow_mut().leave(left);
            let entered = enter();
            assert_eq!(entered.index, left.index, "its place is taken");
            open.borrow_mut()
                .push((entered, sockets.adopt(entered, socket).unwrap()));
        }
        let is_there = streams.borrow().carrier(key).is_some();
        tell.send((key, ready, is_there)).unwrap();
    };
    attend((&sockets, hearing), turn, async {
        let (_, _, is_there) = turns.recv().await.unwrap();
        assert!(is_there, "it made room, but not its own");
        let (passed_over, _, is_there) = turns.recv().await.unwrap();
        assert!(!is_there, "it is over");
        let (key, ready, is_there) = turns.recv().await.unwrap();
        assert!(is_there && ready.read, "what is the newcomer's own is told");
        assert_eq!(key.index, passed_over.index);
        assert_ne!(key.generation, passed_over.generation);
    })
    .await;
}

#[tokio::test]
async fn however_many_ask_all_have_their_turn_in_order() {
    let (sockets, hearing) = sockets().unwrap();
    let many = 2 * TURNS as u32 + 1;
    told((&sockets, hearing), async |turns| {
        for round in [0..many, many..many + 1, many + 1..2 * many] {
            round.clone().for_each(|index| sockets.ask(Key::test(index)));
            for index in round {
                assert_eq!(turns.recv().await, Some((Key::test(index), Ready::default())));
            }
        }
    })
    .await;
}

/// Who asks does not keep the sockets from being heard, however often it asks again.
#[tokio::test]
async fn who_asks_for_ever_is_not_all_that_is_heard() {
    let (sockets, hearing) = sockets().unwrap();
    let (socket, mut peer) = pair().await;
    let (quiet, eager) = (Key::test(0), Key::test(1));
    let _socket = sockets.adopt(quiet, socket).unwrap();
    sockets.ask(eager);
    let (tell, mut turns) = unbounded_channel();
    let turn = |key, ready| match key {
        _ if key == eager => sockets.ask(eager),
        _ => tell.send((key, ready)).unwrap(),
    };
    attend((&sockets, hearing), turn, async {
        peer.write_all(b"x").await.unwrap();
        until(&mut turns, quiet, |ready| ready.read).await;
    })
    .await;
}

#[tokio::test]
async fn one_that_took_no_more_is_told_when_it_does() {
    let (sockets, hearing) = sockets().unwrap();
    let (socket, mut peer) = pair().await;
    let key = Key::test(0);
    let mut socket = sockets.adopt(key, socket).unwrap();
    told((&sockets, hearing), async |turns| {
        until(turns, key, |ready| ready.write).await;
        let mut written = 0;
        let full = loop {
            match socket.write(&[b'x'; 64 * 1024]) {
                Ok(bytes) => written += bytes as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        let go_on = async {
            loop {
                until(turns, key, |ready| ready.write).await;
                match socket.write(b"x") {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    more => break drop((socket, written += more.unwrap() as u64)),
                }
            }
        };
        let ((), read) = tokio::join!(go_on, async { copy(&mut peer, &mut sink()).await.unwrap() });
        assert_eq!(read, written);
    })
    .await;
}
