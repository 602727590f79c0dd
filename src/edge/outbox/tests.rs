use proptest::prelude::*;

use super::*;

/// A socket that takes so many bytes at most, and so many in one write.
#[derive(Debug, Default)]
struct Pipe {
    room: usize,
    at_once: usize,
    got: Vec<u8>,
    writes: usize,
    /// Where those ended of which it took everything.
    ends: Vec<usize>,
    broken: bool,
}

impl Pipe {
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(self.room).min(self.at_once);
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.writes += 1;
        self.room -= taken;
        self.got.extend_from_slice(&bytes[..taken]);
        if taken == bytes.len() {
            self.ends.push(self.got.len());
        }
        Ok(taken)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let whole: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.take(&whole)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wide() -> Pipe {
    Pipe {
        room: usize::MAX,
        at_once: usize::MAX,
        ..Pipe::default()
    }
}

fn whole(outbox: &mut Outbox, text: &'static str, flow: Flow, bound: usize, pipe: &mut Pipe) -> Offer {
    outbox.offer(Chunk::Whole(&Bytes::from_static(text.as_bytes())), flow, bound, pipe)
}

#[test]
fn the_head_goes_out_with_the_first_piece_or_when_told_to() {
    let mut pipe = wide();
    let mut outbox = Outbox::new(Bytes::from_static(b"head "));
    outbox.flush(&mut pipe);
    outbox.note(&Bytes::from_static(b"note "), &mut pipe);
    assert_eq!(pipe.writes, 0);
    assert_eq!(whole(&mut outbox, "a", Flow::Single, 1, &mut pipe), Offer::Taken);
    assert_eq!((&pipe.got[..], pipe.writes), (&b"head note a"[..], 2));
    let mut outbox = Outbox::new(Bytes::from_static(b"|head"));
    outbox.begin(&mut pipe);
    assert_eq!((&pipe.got[..], pipe.writes), (&b"head note a|head"[..], 3));
}

#[test]
fn what_comes_together_is_written_at_once() {
    let mut pipe = wide();
    let mut outbox = Outbox::new(Bytes::from_static(b"head "));
    for text in ["a", "b", "c"] {
        assert_eq!(whole(&mut outbox, text, Flow::More, 100, &mut pipe), Offer::Taken);
    }
    assert_eq!(pipe.writes, 0);
    outbox.flush(&mut pipe);
    assert_eq!((&pipe.got[..], pipe.writes), (&b"head abc"[..], 1));
    assert_eq!(whole(&mut outbox, "d", Flow::Single, 100, &mut pipe), Offer::Taken);
    assert_eq!(pipe.writes, 2);
    // Over the bound, what waits for more waits no longer.
    for text in ["eeee", "ffff", "gggg"] {
        assert_eq!(whole(&mut outbox, text, Flow::More, 8, &mut pipe), Offer::Taken);
    }
    assert_eq!((&pipe.got[8..], pipe.writes), (&b"deeeeffff"[..], 3));
}

#[test]
fn a_write_ends_with_an_event() {
    let mut pipe = wide();
    let mut outbox = Outbox::new(Bytes::from_static(b"head"));
    for _ in 0..200 {
        let event = Chunk::Parts {
            front: b"id",
            body: &Bytes::from_static(b"event"),
            back: b"\n",
        };
        assert_eq!(outbox.offer(event, Flow::More, 1 << 20, &mut pipe), Offer::Taken);
    }
    outbox.flush(&mut pipe);
    assert_eq!(pipe.got.len(), 4 + 200 * 8);
    assert!(pipe.writes <= 200 / (PIECES / 3) + 1, "{} writes", pipe.writes);
    assert!(pipe.ends.iter().all(|end| (end - 4) % 8 == 0), "{:?}", pipe.ends);
}

#[test]
fn a_full_socket_is_not_tried_again_before_it_is_writable() {
    let mut pipe = Pipe {
        room: 2,
        at_once: usize::MAX,
        ..Pipe::default()
    };
    let mut outbox = Outbox::default();
    assert_eq!(whole(&mut outbox, "abcd", Flow::Single, 4, &mut pipe), Offer::Taken);
    pipe.room = 100;
    assert_eq!(whole(&mut outbox, "ef", Flow::Single, 4, &mut pipe), Offer::Taken);
    assert_eq!(whole(&mut outbox, "g", Flow::Single, 4, &mut pipe), Offer::Full);
    outbox.flush(&mut pipe);
    assert_eq!((&pipe.got[..], outbox.take_drained()), (&b"ab"[..], false));
    outbox.writable(&mut pipe);
    assert_eq!(&pipe.got, b"abcdef");
    assert!(outbox.take_drained() && !outbox.take_drained());
}

#[test]
fn what_fits_beside_what_the_socket_left_is_taken() {
    let mut pipe = Pipe {
        room: 6,
        at_once: usize::MAX,
        ..Pipe::default()
    };
    let mut outbox = Outbox::default();
    for text in ["aaaa", "bbbb", "cccc"] {
        assert_eq!(whole(&mut outbox, text, Flow::More, 8, &mut pipe), Offer::Taken);
    }
    assert_eq!((&pipe.got[..], outbox.bytes()), (&b"aaaabb"[..], 6));
    assert_eq!(whole(&mut outbox, "dddd", Flow::More, 8, &mut pipe), Offer::Full);
}

#[test]
fn a_broken_socket_is_gone() {
    let mut pipe = Pipe {
        broken: true,
        ..Pipe::default()
    };
    let mut outbox = Outbox::default();
    assert_eq!(whole(&mut outbox, "a", Flow::More, 9, &mut pipe), Offer::Taken);
    outbox.flush(&mut pipe);
    assert!(outbox.is_over() && outbox.is_empty());
    assert_eq!(whole(&mut outbox, "b", Flow::Single, 9, &mut pipe), Offer::Gone);
    let mut outbox = Outbox::default();
    assert_eq!(whole(&mut outbox, "b", Flow::Single, 9, &mut pipe), Offer::Gone);
    assert!(outbox.is_over());
}

/// What is done to an outbox.
#[derive(Debug, Clone)]
enum Step {
    /// Something is offered: in so many parts, of this length.
    Offer(bool, usize, Flow),
    Flush,
    /// The socket has so much more room, which it tells if it had none.
    Room(usize),
    Note,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flow = prop::sample::select(vec![Flow::Single, Flow::More]);
    let step = prop_oneof![
        6 => (any::<bool>(), 1..40_usize, flow).prop_map(|(parts, len, flow)| Step::Offer(parts, len, flow)),
        2 => Just(Step::Flush),
        3 => (1..120_usize).prop_map(Step::Room),
        1 => Just(Step::Note),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Wherever the socket stops taking: what was taken arrives, to the byte and in order; what was refused does not; no more waits than
    /// may, and nothing for ever. A write ends with a chunk, unless the socket ended it.
    #[test]
    fn what_is_taken_arrives_in_order_within_the_bound(
        steps in steps(),
        at_once in 1..60_usize,
        bound in 1..100_usize,
        end in any::<bool>(),
    ) {
        let mut pipe = Pipe { at_once, ..Pipe::default() };
        let mut outbox = Outbox::new(Bytes::from_static(b"head"));
        let mut want = b"head".to_vec();
        let mut ends = vec![want.len()];
        let (mut letter, mut noted) = (b'a', 0);
        for step in steps {
            letter = if letter == b'z' { b'a' } else { letter + 1 };
            match step {
                Step::Offer(in_parts, len, flow) => {
                    let bytes = Bytes::from(vec![letter; len]);
                    let chunk = if in_parts {
                        Chunk::Parts { front: b"<", body: &bytes, back: b">" }
                    } else {
                        Chunk::Whole(&bytes)
                    };
                    let offer = outbox.offer(chunk, flow, bound, &mut pipe);
                    if offer == Offer::Taken {
                        prop_assert!(outbox.bytes() <= bound.max(chunk.len()).max(4) + noted);
                    }
                    match offer {
                        Offer::Taken if in_parts => want.extend([b"<", &bytes[..], b">"].concat()),
                        Offer::Taken => want.extend(&bytes),
                        refused => {
                            prop_assert_eq!(refused, Offer::Full);
                            // The socket has to say that it is writable before anything is taken again.
                            prop_assert!(outbox.blocked && outbox.bytes() + chunk.len() > bound);
                        }
                    }
                    prop_assert!(flow == Flow::More || outbox.is_empty() || outbox.blocked);
                }
                Step::Flush => outbox.flush(&mut pipe),
                Step::Room(more) => {
                    let had_none = pipe.room == 0;
                    pipe.room += more;
                    if had_none {
                        outbox.writable(&mut pipe);
                    }
                }
                Step::Note => {
                    outbox.note(&Bytes::from_static(b"!"), &mut pipe);
                    want.push(b'!');
                    noted += 1;
                }
            }
            ends.push(want.len());
            prop_assert!(want.starts_with(&pipe.got));
            prop_assert!(pipe.ends.iter().all(|end| ends.contains(end)));
            prop_assert_eq!(outbox.bytes(), want.len() - pipe.got.len());
        }
        if end {
            let writes = pipe.writes;
            outbox.end(&Bytes::from_static(b"end"));
            outbox.end(&Bytes::from_static(b"again"));
            prop_assert_eq!(pipe.writes, writes, "the last is for the turn to write");
            want.extend_from_slice(b"end");
        }
        let refused = outbox.refused;
        pipe.room = usize::MAX;
        outbox.begin(&mut pipe);
        outbox.writable(&mut pipe);
        prop_assert_eq!(&pipe.got, &want);
        prop_assert_eq!((outbox.is_empty(), outbox.is_over()), (true, end));
        prop_assert_eq!((outbox.take_drained(), outbox.take_drained()), (refused, false));
    }
}
