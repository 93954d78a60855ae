//! What is durable: jobs, batches and files. A record is the truth of its object's state, a lane only a way to run it, and the
//! journal of results holds what came of it.

mod batch;
mod dead;
mod file;
mod job;
mod outcome;
mod piece;
mod store;

pub use batch::{Batch, BatchState, Counts, Cursor, OpenSegment, Written};
pub use dead::{DeadLetter, bury, letters, settle};
pub use file::{File, PART_BYTES, Purpose};
pub use job::{End, Job, Place, State};
pub use outcome::{Commit, Outcome, all_outcomes, body_key, commit, commit_if_room, conclude, end, input_topic, outcomes, read, topic};
pub use piece::{PIECE_BYTES_MAX, Piece, log, log_topic, read_piece};
pub use store::{Created, Kept, StoreError, Stored, all, change, create, delete, delete_at, get, of_entry, replace};
