//! The lean client: thousands of streams in one process, on one thread and one epoll. An open stream takes about a hundred bytes here, and
//! some of the kernel's.
//!
//! ```text
//! commands ─▶ engine ─▶ stream (one each: where it is, what is torn) ─▶ check (once, in order?) ─▶ samples
//! ```
//!
//! [`plan`] is what the streams are, [`say`] what goes to and fro.

mod check;
mod dial;
mod engine;
pub mod plan;
pub mod say;
mod stream;

pub use self::{
    check::Deliveries,
    engine::run,
    plan::{Comeback, Follows, Plan, Published, Slow},
    say::{Command, How, Part, Sample},
};
