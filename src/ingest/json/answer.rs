//! What came of an event, as JSON.

use bytes::Bytes;
use http::Response;
use serde::Serialize;

use crate::{
    ingest::{IngestError, Partly, Published},
    problem::Problem,
};

/// `{"results":[…]}`.
#[derive(Serialize)]
struct Results<'a> {
    results: Vec<TopicResult<'a>>,
}

/// A problem with one more member: what came of each topic.
#[derive(Serialize)]
struct PartlyProblem<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    results: Vec<TopicResult<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum TopicResult<'a> {
    Published {
        topic: &'a str,
        sequence: u64,
        repeated: bool,
    },
    Failed {
        topic: &'a str,
        error: Problem,
    },
}

/// The answer for one event that all its topics have.
pub(super) fn of_all(published: &Published) -> Vec<u8> {
    let results = published.landed.iter().map(|landed| TopicResult::Published {
        topic: landed.topic.as_str(),
        sequence: landed.seq.map_or(0, |seq| seq.0),
        repeated: landed.repeated,
    });
    to_json(&Results {
        results: results.collect(),
    })
}

/// The answer for one event that not all its topics have.
pub(super) fn of_failure(error: &IngestError) -> Response<Bytes> {
    let body = body(error);
    problem(error).into_response_with(body)
}

/// The line that answers a line.
pub(super) fn line(number: u64, outcome: Result<Published, IngestError>) -> Bytes {
    let mut text = match outcome {
        Ok(published) => of_all(&published),
        Err(error) => {
            let mut text = format!("{{\"line\":{number},\"error\":").into_bytes();
            text.extend_from_slice(&body(&error));
            text.push(b'}');
            text
        }
    };
    text.push(b'\n');
    text.into()
}

pub(super) fn problem(error: &IngestError) -> Problem {
    let verdict = error.verdict();
    Problem {
        field: error.field(),
        retry_after: verdict.retry_after,
        ..Problem::new(verdict.status, error.to_string())
    }
}

fn body(error: &IngestError) -> Bytes {
    let problem = problem(error);
    match error {
        IngestError::Partly(partly) => to_json(&PartlyProblem {
            problem: &problem,
            results: results(partly),
        })
        .into(),
        _ => problem.body(),
    }
}

fn results(partly: &Partly) -> Vec<TopicResult<'_>> {
    let results = partly.topics.iter().map(|(topic, outcome)| match outcome {
        Ok(placed) => TopicResult::Published {
            topic: topic.as_str(),
            sequence: placed.seq.0,
            repeated: placed.repeated,
        },
        Err(error) => TopicResult::Failed {
            topic: topic.as_str(),
            error: problem(&IngestError::Append(error.clone())),
        },
    });
    results.collect()
}

fn to_json(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).unwrap_or_default()
}
