//! core: what travels between the roles: frames of messages, each a MessagePack head and a raw payload.

mod envelope;
mod fault;
mod frame;
mod messages;
mod usage;

pub use envelope::{Claim, Encoding, Envelope, JobRef};
pub use fault::Fault;
pub use frame::{BadFrame, COALESCE_MAX, FRAME_BYTES_MAX, FrameWriter, PART_BYTES_MAX, Part, WIRE_VERSION, decode, encode_one};
pub use messages::{
    AskLook, BackendCredit, Cancel, Dispatch, DispatchItem, Heartbeat, Held, ItemDone, ItemEnd, Looked, ModelCredit, Moved, Passed,
    RefuseReason, Reply, ReplyHead, Resend, Returned, ReturnedItem, Running, Span, ToIngress, ToScheduler, ToWorker, Usage, Wait,
};
pub use usage::Call;
#[cfg(test)]
pub(crate) use usage::sample as sample_call;
