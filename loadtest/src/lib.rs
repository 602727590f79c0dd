//! A black-box load tester for event-stream servers: it knows the outside contract of Tidings and nothing else.
//!
//! In the order in which a run meets them:
//!
//! | what | |
//! |---|---|
//! | [`scenario`] | what is done, and what is measured meanwhile |
//! | [`target`] | the server: one that runs, one that is started for this, or a whole cluster |
//! | [`template`] | how it is spoken to, ours or another |
//! | [`fleet`] | the processes that hold the streams, and who commands them |
//! | [`swarm`] | the lean client: thousands of streams in one process on one epoll, each event checked |
//! | [`payload`] | what an event carries |
//! | [`publish`] | publishers: over gRPC, or over HTTP by a template |
//! | [`raw`] | the smallest server that there can be, to compare with |
//! | [`process`], [`kernel`], [`watched`] | what the system says of memory and processor |
//! | [`report`] | what came of it: ledger, figures, plots |
//!
//! [`wire`] takes apart what comes out of a socket.

mod alarm;
pub mod fleet;
pub mod kernel;
pub mod payload;
pub mod process;
pub mod publish;
pub mod raw;
pub mod report;
pub mod scenario;
pub mod swarm;
pub mod target;
pub mod template;
pub mod watched;
pub mod wire;

pub use self::{
    report::Report,
    scenario::hold,
    target::Node,
    wire::{chunked, get, stream},
};
