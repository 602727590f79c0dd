//! What was sent and what became of it. Pure: requests and answers in, what to do out.

use std::{collections::VecDeque, time::Duration};

use tidings_proto::v1::{PublishError, PublishStreamResponse, publish_stream_response::Outcome};
use tonic::Code;

use super::source::Item;

/// How many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Durable.
    pub(super) acknowledged: u64,
    /// Of those, published before under the same key.
    pub(super) repeated: u64,
    /// Not published.
    pub(super) refused: u64,
    /// Perhaps published: the answer was lost, and without a key it is not asked again.
    pub(super) unknown: u64,
}

/// What an answer means for the event it answers.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Acknowledged(Item),
    Refused {
        item: Item,
        reason: String,
    },
    Unknown {
        item: Item,
        reason: String,
    },
    /// It is kept, to be sent again.
    Again {
        reason: String,
        after: Duration,
    },
    /// There was nothing to answer.
    Unasked,
}

/// The events under way, in order.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Sent or to be sent on this stream, unanswered.
    pending: VecDeque<Item>,
    /// Answered with a reason to come back, to be sent on the next stream.
    again: VecDeque<Item>,
    /// Whether an event without a key is sent again although it may be published twice.
    retry_unkeyed: bool,
    pub(super) tally: Tally,
}

impl Ledger {
    pub(super) fn new(retry_unkeyed: bool) -> Self {
        Self {
            retry_unkeyed,
            ..Self::default()
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Whether something waits for another stream: nothing new goes out before it.
    pub(super) fn must_come_back(&self) -> bool {
        !self.again.is_empty()
    }

    pub(super) fn send(&mut self, item: Item) {
        self.pending.push_back(item);
    }

    pub(super) fn refuse(&mut self) {
        self.tally.refused += 1;
    }

    /// Everything that the next stream begins with, in order.
    pub(super) fn resend(&mut self) -> impl Iterator<Item = &Item> {
        while let Some(item) = self.again.pop_back() {
            self.pending.push_front(item);
        }
        self.pending.iter()
    }

    /// The earliest line that is not settled.
    pub(super) fn first_line(&self) -> Option<u64> {
        self.again.front().or_else(|| self.pending.front())?.line
    }

    /// Answers come in the order of the requests.
    pub(super) fn answer(&mut self, response: PublishStreamResponse) -> Verdict {
        let Some(item) = self.pending.pop_front() else {
            return Verdict::Unasked;
        };
        match response.outcome {
            Some(Outcome::Published(response)) => {
                // On one node there are no errors here; in a cluster some topics may have the event and others not. What can be tried again
                // is, and no sooner than the last of them may succeed.
                let failed = response
                    .results
                    .iter()
                    .filter_map(|result| Some((&result.topic, result.error.as_ref()?)))
                    .max_by_key(|(_, error)| (is_retryable(error), error.retry_after_ms));
                match failed {
                    Some((topic, error)) => {
                        let reason = format!("topic {topic}: {}", error.message);
                        self.failed(item, error, reason, true)
                    }
                    None => {
                        self.tally.acknowledged += 1;
                        if !response.results.is_empty() && response.results.iter().all(|result| result.repeated) {
                            self.tally.repeated += 1;
                        }
                        Verdict::Acknowledged(item)
                    }
                }
            }
            Some(Outcome::Error(error)) => {
                let reason = match error.field.as_str() {
                    "" => error.message.clone(),
                    field => format!("{field}: {}", error.message),
                };
                self.failed(item, &error, reason, false)
            }
            None => {
                let reason = "the server's answer is of a later version".to_owned();
                self.tally.unknown += 1;
                Verdict::Unknown { item, reason }
            }
        }
    }

    /// `partly`: some topics have the event, so that only its key makes it safe to send again.
    fn failed(&mut self, item: Item, error: &PublishError, reason: String, partly: bool) -> Verdict {
        let safe = !item.request.key.is_empty() || self.retry_unkeyed;
        let retryable = is_retryable(error);
        // Of these two nothing was published by what failed.
        let refused = matches!(Code::from(error.code), Code::Unavailable | Code::ResourceExhausted);
        let published = partly || (retryable && !refused);
        if retryable && (safe || !published) {
            self.again.push_back(item);
            let after = Duration::from_millis(error.retry_after_ms);
            Verdict::Again { reason, after }
        } else if published {
            self.tally.unknown += 1;
            Verdict::Unknown { item, reason }
        } else {
            self.tally.refused += 1;
            Verdict::Refused { item, reason }
        }
    }

    /// The stream broke. What has no key may have been published and is given up; the rest is kept for the next stream.
    pub(super) fn broken(&mut self) -> Vec<Item> {
        if self.retry_unkeyed {
            return Vec::new();
        }
        let (kept, lost): (VecDeque<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().fold(
            (VecDeque::new(), Vec::new()),
            |(mut kept, mut lost), item| {
                if item.request.key.is_empty() {
                    lost.push(item);
                } else {
                    kept.push_back(item);
                }
                (kept, lost)
            },
        );
        self.pending = kept;
        self.tally.unknown += lost.len() as u64;
        lost
    }
}

/// Whether an event that failed so may be published if it is sent again.
fn is_retryable(error: &PublishError) -> bool {
    matches!(
        Code::from(error.code),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Cancelled
    )
}

#[cfg(test)]
mod tests {
    use tidings_proto::v1::{PublishRequest, PublishResponse, TopicResult};

    use super::*;

    fn item(line: u64, key: &str) -> Item {
        Item {
            line: Some(line),
            request: PublishRequest {
                topics: vec!["t".to_owned()],
                key: key.to_owned(),
                ..PublishRequest::default()
            },
            bytes: 1,
        }
    }

    fn published(repeated: bool) -> PublishStreamResponse {
        let result = TopicResult {
            repeated,
            ..TopicResult::default()
        };
        PublishStreamResponse {
            outcome: Some(Outcome::Published(PublishResponse { results: vec![result] })),
        }
    }

    fn error(code: Code) -> PublishStreamResponse {
        PublishStreamResponse {
            outcome: Some(Outcome::Error(PublishError {
                code: code.into(),
                message: "because".to_owned(),
                field: "key".to_owned(),
                retry_after_ms: 7,
            })),
        }
    }

    #[test]
    fn answers_settle_events_in_order() {
        let mut ledger = Ledger::new(false);
        for line in 1..=3 {
            ledger.send(item(line, "k"));
        }
        assert_eq!(ledger.answer(published(false)), Verdict::Acknowledged(item(1, "k")));
        assert_eq!(ledger.answer(published(true)), Verdict::Acknowledged(item(2, "k")));
        let reason = "key: because".to_owned();
        assert_eq!(
            ledger.answer(error(Code::InvalidArgument)),
            Verdict::Refused {
                item: item(3, "k"),
                reason
            }
        );
        let expected = Tally {
            acknowledged: 2,
            repeated: 1,
            refused: 1,
            unknown: 0,
        };
        assert_eq!(ledger.tally, expected);
        assert_eq!((ledger.in_flight(), ledger.must_come_back()), (0, false));
        assert_eq!(ledger.answer(published(false)), Verdict::Unasked);
    }

    #[test]
    fn what_was_not_published_is_sent_again_in_order_with_or_without_a_key() {
        let mut ledger = Ledger::new(false);
        for (line, key) in [(1, ""), (2, "b"), (3, "")] {
            ledger.send(item(line, key));
        }
        for _ in 0..2 {
            let verdict = ledger.answer(error(Code::Unavailable));
            assert!(matches!(verdict, Verdict::Again { after, .. } if after == Duration::from_millis(7)));
        }
        assert!(ledger.must_come_back());
        let lines: Vec<_> = ledger.resend().map(|item| item.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(3)]);
        assert!(!ledger.must_come_back());
    }

    #[test]
    fn a_broken_stream_loses_the_answers_of_what_has_no_key() {
        let mut ledger = Ledger::new(false);
        for (line, key) in [(1, "a"), (2, ""), (3, "c")] {
            ledger.send(item(line, key));
        }
        assert_eq!(ledger.broken(), [item(2, "")]);
        assert_eq!(ledger.tally.unknown, 1);
        let lines: Vec<_> = ledger.resend().map(|item| item.line).collect();
        assert_eq!(lines, [Some(1), Some(3)]);

        let mut ledger = Ledger::new(true);
        ledger.send(item(1, ""));
        assert_eq!(ledger.broken(), []);
        assert_eq!(ledger.resend().count(), 1);
    }

    #[test]
    fn what_only_some_topics_have_is_not_acknowledged_and_asked_again_with_its_key() {
        let failed = |code: Code, wait| TopicResult {
            topic: format!("{code:?}"),
            error: Some(PublishError {
                code: code.into(),
                retry_after_ms: wait,
                ..PublishError::default()
            }),
            ..TopicResult::default()
        };
        let partly = |failures: &[(Code, u64)]| PublishStreamResponse {
            outcome: Some(Outcome::Published(PublishResponse {
                results: std::iter::once(TopicResult::default())
                    .chain(failures.iter().map(|&(code, wait)| failed(code, wait)))
                    .collect(),
            })),
        };
        let mut ledger = Ledger::new(false);
        let failures = [
            (Code::FailedPrecondition, 9),
            (Code::Unavailable, 5),
            (Code::Unavailable, 1),
        ];
        for (line, key) in [(1, "a"), (2, ""), (3, "c")] {
            ledger.send(item(line, key));
        }
        let first = ledger.answer(partly(&failures));
        assert!(matches!(first, Verdict::Again { after, .. } if after == Duration::from_millis(5)));
        // Without a key it would be published twice where it is.
        assert!(matches!(ledger.answer(partly(&failures)), Verdict::Unknown { .. }));
        // What is left would never succeed, but is not nowhere either.
        assert!(matches!(ledger.answer(partly(&failures[..1])), Verdict::Unknown { .. }));
        assert_eq!(ledger.tally.acknowledged, 0);
        assert_eq!(ledger.resend().map(|item| item.line).collect::<Vec<_>>(), [Some(1)]);
    }

    #[test]
    fn an_unknown_outcome_is_asked_again_only_with_a_key() {
        let mut ledger = Ledger::new(false);
        ledger.send(item(1, "a"));
        ledger.send(item(2, ""));
        assert!(matches!(ledger.answer(error(Code::Unknown)), Verdict::Again { .. }));
        assert!(matches!(ledger.answer(error(Code::Unknown)), Verdict::Unknown { .. }));
    }
}
