//! What is known of the events that revocations are in, and which of them have to be appended again: pure.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};

use crate::{
    auth::{Revocation, RevocationError},
    log::Heads,
    model::{Event, Publish, PublishKey, Seq, Topic, UnixMillis},
};

/// How long a log may lag behind what was heard of it. What it does not have after that it has lost.
const LAG: Duration = Duration::from_secs(60);

/// The latest event of each revocation that still counts, by its text.
#[derive(Debug, Default)]
pub(super) struct Known {
    kept: HashMap<Arc<str>, Kept>,
    /// At how many it is looked for those that are over.
    full: usize,
}

/// So many may be there before it is looked for those that are over.
const FEW: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct Kept {
    until: UnixMillis,
    /// When it was last appended, and where.
    time: UnixMillis,
    seq: Seq,
}

impl Known {
    /// Hears an event; gives back what it revokes.
    pub(super) fn hear(&mut self, event: &Event, now: UnixMillis) -> Result<Option<Revocation>, RevocationError> {
        // What is not kept reveals nothing of the log.
        let Some(seq) = event.seq else { return Ok(None) };
        let revocation = Revocation::from_json(&event.data)?;
        self.make_room(now);
        if revocation.until > now {
            let heard = Kept {
                until: revocation.until,
                time: event.time,
                seq,
            };
            let kept = self.kept.entry(Arc::clone(&event.data)).or_insert(heard);
            if kept.seq < seq {
                *kept = heard;
            }
        }
        Ok(Some(revocation))
    }

    /// Forgets what is over, whenever there are twice as many as were left the last time: all of them are not looked at for each that is heard.
    fn make_room(&mut self, now: UnixMillis) {
        if self.kept.len() >= self.full.max(FEW) {
            self.kept.retain(|_, kept| kept.until > now);
            self.full = 2 * self.kept.len();
        }
    }

    /// What was heard may not be in the log any more: where it is will be heard anew.
    pub(super) fn doubt(&mut self) {
        self.kept.values_mut().for_each(|kept| kept.seq = Seq::ZERO);
    }

    /// Those that the log is about to drop, or has dropped: those that are in the older half of what it keeps, by age (it keeps events for `age`) or by
    /// place. So each is appended about twice in the time for which events are kept.
    pub(super) fn due(&self, age: Duration, heads: Option<&Heads>, now: UnixMillis) -> Vec<Publish> {
        let is_due = |kept: &Kept| {
            let aged = now.0.saturating_sub(kept.time.0);
            let is_old = Duration::from_millis(aged) >= age / 2;
            let is_lost = |heads: &Heads| kept.seq > heads.last && Duration::from_millis(aged) > LAG;
            kept.until > now && (is_old || heads.is_some_and(|heads| is_below_half(kept.seq, heads) || is_lost(heads)))
        };
        let due = self.kept.iter().filter(|(_, kept)| is_due(kept));
        due.filter_map(|(text, kept)| again(text, kept.time)).collect()
    }
}

/// Whether a sequence is in the older half of what is kept, where anything has been dropped yet.
fn is_below_half(seq: Seq, heads: &Heads) -> bool {
    let (floor, last) = (heads.floor.0, heads.last.0);
    seq.0 < floor || (floor > 1 && seq.0 - floor < last.saturating_sub(floor) / 2)
}

/// A revocation that was last appended at a time, to be appended again. Whoever else does so has the same key: it is appended once.
fn again(text: &Arc<str>, time: UnixMillis) -> Option<Publish> {
    let digest = Sha256::digest(text.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Publish {
        topics: vec![Topic::revocations()],
        event_type: None,
        data: Arc::clone(text),
        // It is always one.
        key: PublishKey::parse(&format!("renewed-{}-{digest}", time.0)).ok(),
        deadline: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::Target,
        model::{Epoch, Shard},
    };

    const AGE: Duration = Duration::from_secs(100);
    const NEVER: UnixMillis = UnixMillis(u64::MAX);

    fn event(id: &str, until: u64, time: u64, seq: u64) -> Event {
        let revocation = Revocation {
            target: Target::Token(id.into()),
            until: UnixMillis(until),
        };
        let (data, time) = (revocation.to_json().into(), UnixMillis(time));
        Event::new(Topic::revocations(), None, data, time, Some(Seq(seq)))
    }

    fn heads(floor: u64, last: u64) -> Heads {
        Heads {
            shard: Shard(0),
            epoch: Epoch(1),
            last: Seq(last),
            floor: Seq(floor),
            slots: Arc::default(),
        }
    }

    fn due(known: &Known, heads: Option<Heads>, now: u64) -> Vec<String> {
        let due = known.due(AGE, heads.as_ref(), UnixMillis(now));
        let mut texts: Vec<_> = due.iter().map(|publish| publish.data.to_string()).collect();
        texts.sort();
        texts
    }

    #[test]
    fn what_is_old_or_about_to_be_dropped_is_due_until_it_is_heard_again() {
        let mut known = Known::default();
        known
            .hear(&event("a", 500_000, 1_000, 10), UnixMillis(0))
            .expect("a revocation");
        let a = [r#"{"v":1,"token":"a","until":500000}"#];
        for (heads, now, is_due) in [
            (None, 2_000, false),
            (None, 51_000, true),
            (None, 499_999, true),
            (None, 500_000, false),
            // Nothing was dropped yet.
            (Some(heads(1, 1_000)), 2_000, false),
            (Some(heads(2, 10)), 2_000, false),
            (Some(heads(2, 20)), 2_000, true),
            (Some(heads(10, 11)), 2_000, false),
            (Some(heads(11, 11)), 2_000, true),
            // It lags, or has lost it.
            (Some(heads(1, 9)), 2_000, false),
            (Some(heads(1, 9)), 62_000, true),
        ] {
            let shown = format!("{heads:?} {now}");
            assert_eq!(due(&known, heads, now), if is_due { &a[..] } else { &[] }, "{shown}");
        }
        known
            .hear(&event("a", 500_000, 51_000, 30), UnixMillis(0))
            .expect("a revocation");
        assert_eq!(due(&known, Some(heads(11, 30)), 52_000), [""; 0]);
        // What comes late says nothing new.
        known
            .hear(&event("a", 500_000, 1_000, 10), UnixMillis(0))
            .expect("a revocation");
        assert_eq!(due(&known, Some(heads(11, 30)), 52_000), [""; 0]);
        known.doubt();
        assert_eq!(due(&known, Some(heads(11, 30)), 52_000), a);
    }

    #[test]
    fn all_who_append_it_again_do_so_with_the_same_key() {
        let key = |time| again(&"x".into(), UnixMillis(time)).and_then(|publish| publish.key);
        assert!(key(1).is_some());
        assert_eq!(key(1), key(1));
        assert_ne!(key(1), key(2), "the next time is another");
        let longest = again(&"x".repeat(1_000).into(), NEVER).expect("a publish");
        assert!(longest.key.is_some());
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let mut known = Known::default();
        for n in 0..10_000 {
            // Each counts until the next is heard.
            known
                .hear(&event(&n.to_string(), n + 1, 0, n + 1), UnixMillis(n))
                .expect("a revocation");
            assert!(known.kept.len() <= FEW);
        }
        for n in 0..10_000 {
            known
                .hear(&event(&n.to_string(), 20_000, 0, n + 1), UnixMillis(10_000))
                .expect("a revocation");
        }
        assert_eq!(known.due(AGE, None, UnixMillis(19_999)).len(), 0, "they are young");
        assert_eq!(known.kept.values().filter(|kept| kept.until.0 > 10_000).count(), 10_000);
        let strange = Event::new(Topic::revocations(), None, "?".into(), UnixMillis(0), Some(Seq(12)));
        assert!(known.hear(&strange, UnixMillis(0)).is_err());
    }
}
