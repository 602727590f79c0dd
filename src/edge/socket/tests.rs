use proptest::prelude::*;

use super::*;

proptest! {
    /// Wherever the socket stops taking, what is left is the rest, to the byte, and counted with all that is around it.
    #[test]
    fn what_was_not_taken_is_what_is_left(
        frames in prop::collection::vec(("(id: [a-z]{1,9}\n)?", "[a-z]{1,40}\n"), 1..6),
        coding in prop::sample::select(vec![Coding::Chunked, Coding::Identity]),
        stops in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let mut state = State::default();
        let mut rest = Vec::new();
        for (own, body) in &frames {
            let front = coding.front(own.as_bytes(), body.len());
            rest.extend_from_slice(&[&front[..], body.as_bytes(), coding.back()].concat());
            state.push(&front, Bytes::from(body.clone()), coding.back());
        }
        prop_assert_eq!(state.queued, rest.len());
        for stop in stops {
            let taken = stop.index(rest.len() + 1);
            rest.drain(..taken);
            state.written(taken);
            prop_assert_eq!(&state.queue.iter().flatten().copied().collect::<Vec<u8>>(), &rest);
            prop_assert_eq!(state.queued, rest.len());
        }
        state.written(rest.len());
        prop_assert_eq!((state.queued, state.queue.capacity()), (0, 0));
    }
}
