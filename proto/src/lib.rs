//! The gRPC contract of Tidings: what `proto/tidings/v1/*.proto` describes, as Rust types, clients and servers.

pub mod codec;

/// Version 1 of the contract. The `.proto` files are its documentation, field by field.
#[allow(missing_docs, clippy::all, reason = "generated code; documented where it is written")]
pub mod v1 {
    tonic::include_proto!("tidings.v1");
}

/// The encoded descriptors of the contract, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidings.bin"));
