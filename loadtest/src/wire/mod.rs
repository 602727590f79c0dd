//! What comes out of a socket, taken apart: an answer's [`head`], the [`chunked`] body below it, and the [`events`] in that.
//!
//! [`stream`] and [`get`] are clients for single connections; whoever holds thousands has [`swarm`](crate::swarm).

pub mod chunked;
pub mod events;
pub mod get;
pub mod head;
pub mod stream;
