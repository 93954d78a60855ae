//! edge: the ledger in Redis, which many processes share. One script does all that a tenant's requests ask at one moment,
//! in one turn of the server.
//!
//! Over one multiplexed connection, not a pool: Redis works one command at a time anyway, calls of many tasks share its
//! round trips, and a peer that does not answer is one connection to give up instead of many. Needs Redis 5 or newer
//! (scripts that read the time and then write). Time is Redis's own, so that no two machines' clocks matter.

mod link;
mod scripts;
mod turn;
mod wire;

use self::link::Link;
use self::scripts::Script;
use self::turn::Shares;
use super::memory::UnixClock;
use super::{Decision, Look, Reserve, Seed, Seeded, Settle, Settled, Turn};
use crate::config::ClientTls;
use crate::domain::RequestId;
use crate::tls::TlsError;
use std::sync::Arc;
use std::time::Duration;

/// How long a call may take unless the configuration says otherwise: no request waits longer for Redis.
pub const TIMEOUT: Duration = Duration::from_millis(250);

/// Redis did not answer, or not in time: whether the call took effect is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis is away: {0}")]
pub struct Away(pub String);

/// The address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use redis://HOST:PORT, or rediss:// for TLS: {0}")]
pub struct BadUrl(String);

pub struct RedisLedger {
    link: Link,
    /// Tells the time in Redis's place: for tests.
    clock: Option<UnixClock>,
}

impl RedisLedger {
    /// A ledger at an address, not connected yet: see [`Self::connect`].
    ///
    /// # Errors
    /// When the address cannot be read.
    pub fn open(url: &str, timeout: Duration) -> Result<Self, BadUrl> {
        Ok(Self { link: Link::open(url, timeout)?, clock: None })
    }

    /// Over TLS with these files; the address must begin with `rediss://`.
    ///
    /// # Errors
    /// A file that cannot be read, or is not what it should be.
    pub fn secured(self, files: &ClientTls) -> Result<Self, TlsError> {
        Ok(Self { link: self.link.secured(files)?, ..self })
    }

    #[must_use]
    pub fn with_clock(self, clock: UnixClock) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Connects, and leaves the scripts there. Until then, and again after a call that failed, every call fails at once.
    pub async fn connect(&self) -> Result<(), Away> {
        self.link.connect().await
    }

    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Settles, then reserves, all in one round trip; what one tenant gives back is there for those of it who ask. To ask
    /// again after an error is safe: an id that is open is granted, one that was settled is not charged again.
    pub async fn turn(&self, ended: &[Settle], asked: &[Reserve]) -> Result<Turn, Away> {
        let shares = Shares::of(ended, asked);
        let calls = shares.calls(self.now());
        let answers = if calls.is_empty() { Vec::new() } else { self.link.call(Script::Turn, &calls).await? };
        shares.answer(&answers)
    }

    /// Answers in the order asked: see [`Self::turn`].
    pub async fn reserve(&self, asked: &[Reserve]) -> Result<Vec<Decision>, Away> {
        self.turn(&[], asked).await.map(|turn| turn.decisions)
    }

    /// Answers in the order told: see [`Self::turn`].
    pub async fn settle(&self, ended: &[Settle]) -> Result<Vec<Settled>, Away> {
        self.turn(ended, &[]).await.map(|turn| turn.settled)
    }

    /// Keeps reservations of a tenant for another [`super::LEASE_MS`]. Returns how many of them are open.
    pub async fn renew(&self, tenant: &str, ids: &[RequestId]) -> Result<usize, Away> {
        let answer = self.call_one(Script::Renew, wire::renew(self.now(), tenant, ids)).await?;
        wire::renewed(&answer)
    }

    pub async fn seed(&self, seed: &Seed) -> Result<Seeded, Away> {
        let answer = self.call_one(Script::Seed, wire::seed(self.now(), seed)).await?;
        wire::seeded(&answer)
    }

    pub async fn look(&self, tenant: &str, keys: &[Arc<str>]) -> Result<Look, Away> {
        let answer = self.call_one(Script::Look, wire::look(self.now(), tenant, keys)).await?;
        wire::looked(&answer)
    }

    async fn call_one(&self, script: Script, call: wire::Call) -> Result<wire::Answer, Away> {
        let answers = self.link.call(script, &[call]).await?;
        answers.into_iter().next().ok_or_else(wire::misunderstood)
    }

    fn now(&self) -> Option<u64> {
        self.clock.as_ref().map(|clock| clock())
    }
}
