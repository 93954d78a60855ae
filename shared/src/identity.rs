//! core: who may do what. `objects.rs` is what the file and the store hold, `directory.rs` what is compiled from them,
//! `caller.rs` who a request turned out to come from; `key.rs` and `pepper.rs` are the form of an issued key, and what is
//! kept of it.

mod allowed;
mod caller;
mod directory;
pub mod key;
mod literal;
mod objects;
mod pattern;
mod pepper;
mod shards;

pub use allowed::{Allowed, Word};
pub use caller::{Caller, Key, Tenant};
pub use directory::{Change, Directory, Ignored, Source};
pub use key::KeyId;
pub use objects::{Admin, DEFAULT_ROLE, Digest, KeyRecord, Role, Scope, TenantRecord, check_name};
pub use pattern::Pattern;
pub use pepper::Peppers;
