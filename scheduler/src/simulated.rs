//! core: what the simulation of the whole system reaches of this crate's inside, beside the engine. For it alone.

pub use crate::model::{HELD_EVERY, Reading, SETTLE, item};
pub use crate::settled::trim;
