//! The gate: what every port asks of a connection and of a request before it looks at what is wanted.
//!
//! | module | what it keeps out |
//! |---|---|
//! | [`idle`](Idlers) | connections that are opened and not used, when there are too many |
//! | `hosts` | requests for another host, by which pages of strangers reach this machine (DNS rebinding) |
//! | `pages` | requests that pages of other origins have browsers send |
//! | [`prompt`](Prompt) | calls of strangers that begin and never end |
//! | `headers` | what browsers would otherwise make of the answers |

mod calls;
mod headers;
mod hosts;
mod idle;
mod pages;
mod prompt;
mod router;

pub use self::{
    calls::in_use,
    headers::{harden, harden_tls},
    hosts::{HostRefused, Hosts},
    idle::{Idlers, Place, Used},
    pages::{PageRefused, Pages},
    prompt::Prompt,
    router::{Gate, behind, is_grpc},
};
