//! core: what the simulation of the whole system reaches of this crate's inside. For it alone.

pub use crate::accept::accept;
pub use crate::run::{Begun, Groups, Job, Over, Verdict, begin_one};
pub use crate::spoken::Spoken;
pub use crate::table::{Entry, Report, Table};
