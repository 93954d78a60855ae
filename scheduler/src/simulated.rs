//! core: what the simulation of the whole system reaches of this crate's inside, beside the engine. For it alone.

pub use crate::model::{Back, HELD_EVERY, Reading, SETTLE, item, unpack};
pub use crate::settled::trim;
