//! The scenarios: one file each, with `Options`, and a `run` that ends with a [`Report`](crate::Report).

mod course;
pub mod edges;
pub mod fanout;
pub mod growth;
pub mod hold;
pub mod inboxes;
pub mod interest;
pub mod latency;
pub mod million;
pub mod mixed;
pub mod publish;
pub mod rawlimit;
pub mod resume;
pub mod rolling;
pub mod run;
pub mod storm;
