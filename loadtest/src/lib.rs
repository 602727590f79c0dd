//! A black-box load tester for event-stream servers: it knows the outside contract of Tidings and nothing else.
//!
//! One file per scenario, each of which is a set of `Options`, a `run` against a [`Node`] and a [`Report`]:
//!
//! | scenario     | what it measures                                                                  |
//! |--------------|-----------------------------------------------------------------------------------|
//! | [`hold`]     | memory and processor time of the server per idle stream                           |
//! | [`latency`]  | time from publish to receive, at a given rate                                     |
//! | [`publish`]  | appends per second with so many in flight, each durable before it is acknowledged |
//! | [`interest`] | messages that each edge of a cluster hears, with streams at their owners or not   |
//!
//! Around them: [`target`] (the server: one that runs, or one that is started for this), [`process`] (what the system says of it),
//! [`template`] (how a server is spoken to, ours or another), [`payload`] (what an event carries), [`wire`] (what comes out of a socket, taken
//! apart) and [`report`].

pub mod fleet;
pub mod hold;
pub mod interest;
pub mod latency;
pub mod payload;
pub mod process;
pub mod publish;
pub mod report;
pub mod swarm;
pub mod target;
pub mod template;
pub mod wire;

pub use self::{
    report::Report,
    target::Node,
    wire::{chunked, get, stream},
};
