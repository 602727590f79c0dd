//! The connection to NATS that everything of a node shares.
