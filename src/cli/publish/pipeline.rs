//! Publishes what a source gives over one pipelined stream after the other, through restarts of the server.

use std::time::Duration;

use tidings_proto::v1::{PublishStreamResponse, publisher_client::PublisherClient};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use super::{
    ledger::{Ledger, Tally, Verdict},
    source::{Item, Next},
};
use crate::{
    cli::{
        backoff::Backoff,
        bearer::{Bearer, with_token},
    },
    model::Secret,
    tls::{self, ClientTls},
};

/// How many events may wait for their answer.
pub(super) const IN_FLIGHT: usize = 256;

/// The domain of the reasons that the server gives.
pub(super) const DOMAIN: &str = "tidings";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a silent connection is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How to publish.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// `http://127.0.0.1:50051`.
    pub(super) url: String,
    /// Who publishes.
    pub(super) bearer: Bearer,
    /// For a URL that begins with https.
    pub(super) tls: ClientTls,
    /// How long to try without any answer.
    pub(super) retry_for: Duration,
    /// Whether events without a key are sent again although they may be published twice.
    pub(super) retry_unkeyed: bool,
}

/// Why publishing ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error("{url:?} is not the address of a server: http://127.0.0.1:50051 is one")]
    Url { url: String },
    #[error("{url} cannot be published to: {cause}")]
    Final { url: String, cause: String },
    #[error("{cause} (gave up after {tried:.0?})")]
    GaveUp { cause: String, tried: Duration },
    #[error("line {line} cannot be read: {cause}")]
    Input { line: u64, cause: std::io::Error },
    #[error("interrupted")]
    Interrupted,
}

/// Hears how it goes.
pub(super) trait Watch {
    /// So much of the input is settled.
    fn settled(&mut self, bytes: u64);
    /// Something to tell the person.
    fn tell(&mut self, text: &str);
}

/// What became of everything, and where it ended early if it did.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) tally: Tally,
    /// Why it ended before all was settled.
    pub(super) ended_early: Option<PublishError>,
    /// The first line that has no answer then, if there are lines.
    pub(super) first_line: Option<u64>,
}

/// Why one stream ended.
enum End {
    /// All is settled.
    Settled,
    /// It is to be tried again.
    Again { cause: String, after: Duration },
}

/// Publishes everything that comes out of the source.
pub(super) async fn publish(
    mut source: mpsc::Receiver<Next>,
    settings: &Settings,
    watch: &mut impl Watch,
    interrupt: &CancellationToken,
) -> Report {
    let mut publishing = Publishing {
        settings,
        source: &mut source,
        exhausted: false,
        ledger: Ledger::new(settings.retry_unkeyed),
        trouble_since: None,
        told: false,
        token: None,
        backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
        watch,
    };
    let ended_early = tokio::select! {
        ended = publishing.run() => ended.err(),
        () = interrupt.cancelled() => Some(PublishError::Interrupted),
    };
    Report {
        ended_early,
        tally: publishing.ledger.tally,
        first_line: publishing.ledger.first_line(),
    }
}

struct Publishing<'a, W> {
    settings: &'a Settings,
    source: &'a mut mpsc::Receiver<Next>,
    exhausted: bool,
    ledger: Ledger,
    /// When the connection failed, if nothing was answered since.
    trouble_since: Option<Instant>,
    /// Whether this trouble was told.
    told: bool,
    /// The token that was sent last.
    token: Option<Secret>,
    backoff: Backoff,
    watch: &'a mut W,
}

impl<W: Watch> Publishing<'_, W> {
    async fn run(&mut self) -> Result<(), PublishError> {
        let url = &self.settings.url;
        let endpoint = Endpoint::from_shared(url.clone())
            .ok()
            .filter(|endpoint| matches!(endpoint.uri().scheme_str(), Some("http" | "https")))
            .ok_or_else(|| PublishError::Url { url: url.clone() })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        loop {
            // Nobody is asked before there is something to send.
            if self.ledger.in_flight() == 0 && !self.ledger.must_come_back() {
                match self.next_item().await? {
                    Some(item) => self.ledger.send(item),
                    None => return Ok(()),
                }
            }
            let (cause, after) = match tls::connect(&endpoint, &self.settings.tls).await {
                Ok(channel) => match self.stream(PublisherClient::new(channel)).await? {
                    End::Settled => return Ok(()),
                    End::Again { cause, after } => (cause, after),
                },
                Err(error) => (unreachable(url, &error), Duration::ZERO),
            };
            // Since the trouble began: before it there may have been nothing to publish for hours.
            let tried = self.trouble_since.get_or_insert_with(Instant::now).elapsed();
            let left = self.settings.retry_for.saturating_sub(tried);
            if left.is_zero() {
                return Err(PublishError::GaveUp { cause, tried });
            }
            let wait = self.backoff.next().max(after).min(left);
            if !std::mem::replace(&mut self.told, true) {
                let retry_for = humantime::format_duration(self.settings.retry_for);
                self.watch
                    .tell(&format!("{cause} (trying again for up to {retry_for})"));
            }
            sleep(wait).await;
        }
    }

    /// One stream, to its end.
    async fn stream(&mut self, mut client: PublisherClient<Channel>) -> Result<End, PublishError> {
        self.token = match self.settings.bearer.token() {
            Ok(token) => token,
            Err(error) => {
                let (cause, after) = (error.to_string(), Duration::ZERO);
                return Ok(End::Again { cause, after });
            }
        };
        // The channel has room for everything that may be in flight, so that sending never waits. There is at least one by now: a server
        // may answer nothing at all before it has the first request.
        let (sender, requests) = mpsc::channel(IN_FLIGHT);
        for item in self.ledger.resend() {
            let _ = sender.try_send(item.request.clone());
        }
        let request = with_token(ReceiverStream::new(requests), self.token.as_ref());
        let mut answers = match client.publish_stream(request).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return self.broken(&status),
        };
        let mut sender = Some(sender);
        let mut again: Option<(String, Duration)> = None;
        loop {
            let wants_more = !self.exhausted && !self.ledger.must_come_back() && self.ledger.in_flight() < IN_FLIGHT;
            if self.ledger.in_flight() == 0 {
                if let Some((cause, after)) = again {
                    return Ok(End::Again { cause, after });
                }
                if self.exhausted {
                    return Ok(End::Settled);
                }
            }
            tokio::select! {
                // Answers first: they make room.
                biased;
                answer = next_answer(&mut answers) => match answer {
                    Ok(answer) => {
                        if let Some(reason) = self.answered(answer) {
                            again.get_or_insert(reason);
                        }
                    }
                    Err(status) => return self.broken(&status),
                },
                item = self.next_item(), if wants_more => match item? {
                    Some(item) => {
                        if let Some(sender) = &sender {
                            let _ = sender.try_send(item.request.clone());
                        }
                        self.ledger.send(item);
                    }
                    // Nothing more comes: the server may end the stream after its last answer.
                    None => sender = None,
                },
            }
        }
    }

    /// The next event of the source; `None` at its end. Cancelling loses nothing.
    async fn next_item(&mut self) -> Result<Option<Item>, PublishError> {
        loop {
            match self.source.recv().await {
                Some(Next::Item(item)) => return Ok(Some(item)),
                Some(Next::Refused { line, bytes, reason }) => {
                    self.ledger.refuse();
                    self.watch.settled(bytes);
                    self.watch.tell(&format!("line {line} is refused: {reason}"));
                }
                Some(Next::Failed { line, cause }) => return Err(PublishError::Input { line, cause }),
                None => {
                    self.exhausted = true;
                    return Ok(None);
                }
            }
        }
    }

    /// Settles an event; tells why to come back if it was not settled.
    fn answered(&mut self, answer: PublishStreamResponse) -> Option<(String, Duration)> {
        match self.ledger.answer(answer) {
            Verdict::Acknowledged(item) => self.settled(&item),
            Verdict::Refused { item, reason } => {
                self.watch.tell(&format!("{}is refused: {reason}", place(&item)));
                self.settled(&item);
            }
            Verdict::Unknown { item, reason } => {
                self.watch
                    .tell(&format!("{}may or may not be published: {reason}", place(&item)));
                self.settled(&item);
            }
            Verdict::Again { reason, after } => return Some((reason, after)),
            Verdict::Unasked => {}
        }
        None
    }

    fn settled(&mut self, item: &Item) {
        self.watch.settled(item.bytes);
        self.trouble_since = None;
        self.told = false;
        self.backoff.reset();
    }

    fn broken(&mut self, status: &Status) -> Result<End, PublishError> {
        let url = &self.settings.url;
        let cause = match status.message() {
            "" => status.code().description(),
            message => message,
        };
        let retryable = matches!(
            status.code(),
            Code::Unavailable
                | Code::Unknown
                | Code::Internal
                | Code::Cancelled
                | Code::Aborted
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Ok
        );
        // The file has a newer token than the one that is refused, or has expired meanwhile.
        let has_another = || self.settings.bearer.has_another(self.token.as_ref());
        let retryable = retryable || (status.code() == Code::Unauthenticated && has_another());
        if !retryable {
            return Err(PublishError::Final {
                url: url.clone(),
                cause: cause.to_owned(),
            });
        }
        let lost = if is_last_word(status) {
            Vec::new()
        } else {
            self.ledger.broken()
        };
        for item in lost {
            self.watch.settled(item.bytes);
            self.watch.tell(&format!(
                "{}may or may not be published: the connection broke before the answer, and without a key it is not sent again (see --key, --retry-unkeyed)",
                place(&item)
            ));
        }
        Ok(End::Again {
            cause: format!("the connection to {url} broke ({cause})"),
            after: Duration::ZERO,
        })
    }
}

/// An end of the stream is a kind of breaking it off: this side ends it, when all is answered.
async fn next_answer(answers: &mut Streaming<PublishStreamResponse>) -> Result<PublishStreamResponse, Status> {
    answers
        .message()
        .await?
        .ok_or_else(|| Status::unavailable("the server ended the stream"))
}

/// Whether it is the server that ended the stream, for a reason of its own: it drains, say, or wants another token. It has answered all that it
/// took before that; unless it was a deadline, which a proxy may have set.
fn is_last_word(status: &Status) -> bool {
    let details = status.get_error_details();
    let is_its_own = details.error_info().is_some_and(|info| info.domain == DOMAIN);
    is_its_own && status.code() != Code::DeadlineExceeded
}

fn place(item: &Item) -> String {
    item.line
        .map_or_else(|| "the event ".to_owned(), |line| format!("line {line} "))
}

/// What is at the bottom of it: the outer errors only say "transport error".
fn unreachable(url: &str, error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("{url} cannot be reached ({cause}): is `tidings serve` running, and does --url name its gRPC port?")
}
