//! edge: starts the real executable with its broker and a sandbox backend, and fails a test that leaves anything behind.
//!
//! A test builds a [`Mill`]; its destructor asserts that nothing is in flight, queued or running any more, that every
//! process ends by itself when asked, and that no prompt and no key stands in any log.

mod ask;
mod certificates;
mod link;
mod mill;
mod nats_cluster;
mod node;
pub(crate) mod ports;
mod probe;
mod program;
// The ledger's own tests have it, too.
#[path = "../../shared/tests/quota/away/proxy.rs"]
mod proxy;
mod raw;
mod redis;
mod report;
mod secure;
mod setup;
mod tls_listener;
mod wait;

pub(crate) use ask::{StreamEnd, chat, chat_stream, embed, prompt, read_stream, tag};
pub(crate) use certificates::{AUTHORITY, Authority, Pair};
pub(crate) use link::{Link, Road, Weather};
pub(crate) use mill::{Mill, assert_no_canary};
pub(crate) use nats_cluster::NatsCluster;
pub(crate) use node::{Node, Role};
pub(crate) use probe::get as probe;
pub(crate) use program::{Program, administer, nats_server, node_js, python, scratch, tidemill};
pub(crate) use proxy::Proxy;
pub(crate) use raw::RawConnection;
pub(crate) use redis::RedisServer;
pub(crate) use report::report;
pub(crate) use secure::{Broken, Protocol, Secure};
pub(crate) use setup::{CA_FILE, ENV, KEY, KEY_ADMIN, KEY_SMALL, PEPPER, Setup};
pub(crate) use tls_listener::TlsListener;
pub(crate) use wait::until;

use std::time::Duration;

/// Time for anything that should happen soon: far more than a busy machine needs, so that only a defect runs into it.
pub(crate) const SOON: Duration = Duration::from_secs(20);
