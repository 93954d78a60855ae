//! edge: the only source of randomness. Core code takes its draws as arguments.

use crate::domain::{ExecId, NodeId, RequestId};
use crate::identity::key::ENTROPY_LEN;
use uuid::Uuid;

/// A new request id: UUIDv7, so that ids sort by the time they were made.
pub fn request_id() -> RequestId {
    RequestId(now_v7())
}

/// A new execution id, minted by the worker that accepts a request.
pub fn exec_id() -> ExecId {
    ExecId(now_v7())
}

/// A node id such as `worker-3f9c0a1b`, new at every start unless the operator names one.
pub fn node_id(role: &str) -> NodeId {
    NodeId::parse(&format!("{role}-{:08x}", rand::random::<u32>())).expect("a role is a token")
}

/// A name for a message that is stored once, however often it is sent.
pub fn message_id() -> String {
    now_v7().simple().to_string()
}

/// 64 random bits.
pub fn draw() -> u64 {
    rand::random()
}

/// 32 random bytes for a keyed hash that lives no longer than the process.
pub fn secret() -> [u8; 32] {
    rand::random()
}

/// Random bytes for a key that is issued.
pub fn key() -> [u8; ENTROPY_LEN] {
    let mut bytes = [0; ENTROPY_LEN];
    rand::fill(&mut bytes[..]);
    bytes
}

fn now_v7() -> Uuid {
    #[expect(clippy::disallowed_methods, reason = "this module is the one place")]
    Uuid::now_v7()
}
