//! core: who may do what. `objects.rs` is what the file and the store hold, `directory.rs` what is compiled from them,
//! `caller.rs` who a request turned out to come from; `key.rs` and `pepper.rs` are the form of an issued key, and what is
//! kept of it; `records.rs` is where the store keeps them, and `follow.rs` how every replica hears of a change.

mod allowed;
mod caller;
mod directory;
mod follow;
pub mod key;
mod literal;
mod objects;
mod pattern;
mod pepper;
mod records;
mod shards;

pub use allowed::{Allowed, Word};
pub use caller::{Caller, Key, Tenant};
pub use directory::{Change, Directory, Ignored, Source};
pub use follow::LiveDirectory;
pub use key::KeyId;
pub use objects::{Admin, DEFAULT_ROLE, Digest, KeyRecord, Role, Scope, TenantRecord, check_limits, check_name};
pub use pattern::Pattern;
pub use pepper::Peppers;
pub use records::Kind;
