//! Follows topics through every kind of interruption: asks, reads, and asks again from where it was.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};

use super::{
    client::{OpenError, Opened, open},
    parser::{Item, Parser, Received, TooLarge},
};
use crate::cli::{backoff::Backoff, bearer::Bearer, server::Server};

/// Waits do not grow beyond this, unless the server asks for longer ones.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// A stream that carried no event but lasted this long was a real one, not one that said to come back later.
const SETTLED: Duration = Duration::from_secs(5);

/// Without a cursor the way back is measured by time; this much more is asked for, since the request takes time too.
const MARGIN: Duration = Duration::from_secs(2);

/// What to follow, and how.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) server: Server,
    pub(super) topics: Vec<String>,
    pub(super) user: Option<String>,
    /// Who asks.
    pub(super) bearer: Bearer,
    pub(super) start: Start,
    /// The id of the last event that is known.
    pub(super) cursor: Option<String>,
    /// A stream on which nothing came for this long, not even a heartbeat, is dead.
    pub(super) silence: Duration,
    /// How long to wait before the next attempt, until the server has said how long.
    pub(super) retry: Duration,
    /// How long to try without any success; `None`: for ever.
    pub(super) retry_for: Option<Duration>,
}

/// Where to begin without a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// With what is published from now on.
    Now,
    /// This long ago.
    Since(Duration),
    /// With the oldest event that is kept.
    Earliest,
}

/// Why following ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error(transparent)]
    Final(OpenError),
    #[error("{last} (gave up after {tried:.0?})")]
    GaveUp { last: String, tried: Duration },
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("an event cannot be written")]
    Write(#[from] std::io::Error),
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    More,
    Enough,
}

/// Where it is.
#[derive(Debug)]
struct Place {
    cursor: Option<String>,
    start: Start,
    /// When it began, for a start that counts from then.
    began: Instant,
    /// When the first stream was opened, which is where "now" was.
    first_open: Option<Instant>,
}

impl Place {
    /// The `since` to ask for now.
    fn since(&self, now: Instant) -> Option<String> {
        if self.cursor.is_some() {
            return None;
        }
        let back = match self.start {
            Start::Earliest => return Some("earliest".to_owned()),
            Start::Since(back) => back.saturating_add(now - self.began),
            Start::Now => now - self.first_open? + MARGIN,
        };
        let seconds = back.as_secs().saturating_add(u64::from(back.subsec_nanos() > 0));
        Some(format!("{seconds}s"))
    }
}

/// What keeps events from coming; each is told once in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    NoStream,
    EmptyStream,
}

/// Hands each event to `take` until that has enough, the server ends it for good, or something is final. Each event is taken before
/// the next is asked for, so nothing is asked for that was not taken.
pub(super) async fn follow(
    settings: Settings,
    mut take: impl FnMut(&Received) -> std::io::Result<Flow>,
    mut notice: impl FnMut(&str),
) -> Result<(), FollowError> {
    let mut place = Place {
        cursor: settings.cursor.clone(),
        start: settings.start,
        began: Instant::now(),
        first_open: None,
    };
    let mut backoff = Backoff::new(settings.retry, LONGEST_RETRY);
    let mut last_success = Instant::now();
    let mut told = None;
    loop {
        let (trouble, text) = match ask(&settings, &place).await {
            Ok(Opened::Stop) => {
                notice("the server has nothing more to send");
                return Ok(());
            }
            Ok(Opened::Stream(body)) => {
                if told == Some(Trouble::NoStream) {
                    notice("following again");
                    told = None;
                }
                place.first_open.get_or_insert_with(Instant::now);
                let (flow, lived) = read(body, &settings, &mut place, &mut backoff, &mut take).await?;
                if flow == Flow::Enough {
                    return Ok(());
                }
                if lived {
                    backoff.reset();
                    last_success = Instant::now();
                    told = None;
                    sleep(backoff.next()).await;
                    continue;
                }
                let text = "the server ended the stream before anything came: it may be full, or shutting down";
                (Trouble::EmptyStream, text.to_owned())
            }
            Err(error) if error.is_retryable() => (Trouble::NoStream, error.to_string()),
            Err(error) => return Err(FollowError::Final(error)),
        };
        let tried = last_success.elapsed();
        let left = settings.retry_for.map(|most| most.saturating_sub(tried));
        if left == Some(Duration::ZERO) {
            return Err(FollowError::GaveUp { last: text, tried });
        }
        if told != Some(trouble) {
            notice(&format!("{text} (trying again)"));
            told = Some(trouble);
        }
        let wait = backoff.next();
        sleep(wait.min(left.unwrap_or(wait))).await;
    }
}

async fn ask(settings: &Settings, place: &Place) -> Result<Opened, OpenError> {
    let since = place.since(Instant::now());
    let mut query: Vec<(&str, &str)> = settings.topics.iter().map(|topic| ("topic", topic.as_str())).collect();
    query.extend(settings.user.as_deref().map(|user| ("user", user)));
    query.extend(since.as_deref().map(|since| ("since", since)));
    let cursor = place.cursor.as_deref();
    open(&settings.server, &query, cursor, &settings.bearer, settings.silence).await
}

/// Reads one stream to its end, whatever ends it; tells whether it was more than word to come back later.
async fn read(
    mut body: Incoming,
    settings: &Settings,
    place: &mut Place,
    backoff: &mut Backoff,
    take: &mut impl FnMut(&Received) -> std::io::Result<Flow>,
) -> Result<(Flow, bool), FollowError> {
    let mut parser = Parser::default();
    let opened = Instant::now();
    let mut seen = false;
    // Silence, the end and a broken connection come to the same: ask again.
    while let Ok(Some(Ok(frame))) = timeout(settings.silence, body.frame()).await {
        let Some(bytes) = frame.data_ref() else { continue };
        let mut items = Vec::new();
        parser.feed(bytes, |item| items.push(item))?;
        for item in items {
            match item {
                Item::Retry(retry) => backoff.set_base(retry),
                Item::Event(event) => {
                    seen = true;
                    let flow = take(&event)?;
                    if event.id.is_some() {
                        place.cursor = event.id;
                    }
                    if flow == Flow::Enough {
                        return Ok((Flow::Enough, true));
                    }
                }
            }
        }
    }
    Ok((Flow::More, seen || opened.elapsed() >= SETTLED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cursor_the_way_back_is_measured_by_time() {
        let began = Instant::now();
        let mut place = Place {
            cursor: None,
            start: Start::Now,
            began,
            first_open: None,
        };
        let later = began + Duration::from_millis(90_500);
        assert_eq!(
            place.since(later),
            None,
            "nothing to go back to before the first stream"
        );
        place.first_open = Some(began + Duration::from_secs(30));
        assert_eq!(
            place.since(later).as_deref(),
            Some("63s"),
            "60.5 s and the margin, rounded up"
        );
        place.start = Start::Since(Duration::from_secs(600));
        assert_eq!(
            place.since(later).as_deref(),
            Some("691s"),
            "ten minutes before it began"
        );
        place.start = Start::Since(Duration::MAX);
        assert_eq!(place.since(later), Some(format!("{}s", u64::MAX)));
        place.start = Start::Earliest;
        assert_eq!(place.since(later).as_deref(), Some("earliest"));
        place.cursor = Some("1-1.1".to_owned());
        assert_eq!(place.since(later), None, "the cursor says it better");
    }
}
