//! loop: keeps one issuer's keys: fetched at the start, every few minutes, and when a token names one that is not there. Never more
//! than once in 30 s, and one at a time, whoever asks. The last good keys stay until better ones come.

use super::claims::ClaimRules;
use super::invalid;
use super::keyset::KeySet;
use super::source::{FETCH_TIMEOUT, Source, SourceError};
use super::unverified::Unverified;
use bytes::Bytes;
use jsonwebtoken::DecodingKey;
use shared::clock::{self, Time};
use shared::config;
use shared::error::{Code, Failure};
use shared::task::{self, Guarded};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep_until, timeout};

/// The least time between two fetches: a flood of unknown key ids must not become one of fetches.
const FETCH_PAUSE: Duration = Duration::from_secs(30);

/// A key that its issuer has withdrawn is refused here this much later, at most.
const REFRESH_EVERY: Duration = Duration::from_secs(300);

pub(super) struct Issuer {
    claims: ClaimRules,
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    _refreshing: Guarded,
}

struct State {
    keys: KeySet,
    /// What the keys were read from; empty before the first.
    read: Bytes,
    /// Counts the changes of the keys; zero before the first.
    generation: u64,
    /// Fetches that have ended, well or badly.
    attempts: u64,
    is_fetching: bool,
    next_at: Time,
}

impl Issuer {
    /// # Errors
    /// A source that cannot be asked at all. One that does not answer is asked again.
    pub(super) fn start(config: &config::Issuer) -> Result<Self, SourceError> {
        let source = Source::new(&config.jwks)?;
        let (sender, state) = watch::channel(State::new());
        let wanted = Arc::new(Notify::new());
        let name = config.issuer.clone();
        let refreshing = task::spawn_guarded("jwks", refresh(name, source, sender, Arc::clone(&wanted)));
        Ok(Self { claims: ClaimRules::new(config), state, wanted, _refreshing: refreshing })
    }

    pub(super) fn is_named(&self, issuer: &str) -> bool {
        *self.claims.issuer == *issuer
    }

    pub(super) const fn claims(&self) -> &ClaimRules {
        &self.claims
    }

    /// Which keys these are: another number, other keys.
    pub(super) fn generation(&self) -> u64 {
        self.state.borrow().generation
    }

    #[cfg(test)]
    pub(super) fn attempts(&self) -> u64 {
        self.state.borrow().attempts
    }

    /// The key that a token says it was signed with, and the generation it is of.
    ///
    /// # Errors
    /// `invalid_token`; `issuer_unavailable` while there are no keys at all.
    pub(super) async fn key(&self, token: &Unverified) -> Result<(Arc<DecodingKey>, u64), Failure> {
        if !self.claims.allow(token.algorithm) {
            return Err(invalid("The token is signed with an algorithm that is not allowed for its issuer"));
        }
        let mut state = self.state.clone();
        let found = state.borrow().find(token);
        if let Some(found) = found {
            return Ok(found);
        }
        self.newer_keys(&mut state).await;
        let state = state.borrow();
        state.find(token).ok_or_else(|| if state.generation == 0 { unavailable() } else { unknown_key() })
    }

    /// Waits for the next fetch to end, if one is under way or may begin.
    async fn newer_keys(&self, state: &mut watch::Receiver<State>) {
        let (attempts, is_fetching, next_at) = {
            let now = state.borrow();
            (now.attempts, now.is_fetching, now.next_at)
        };
        if !is_fetching {
            if clock::now() < next_at {
                return;
            }
            self.wanted.notify_one();
        }
        // Late or ended: what is there then decides.
        let _ = timeout(FETCH_TIMEOUT * 2, state.wait_for(|state| state.attempts > attempts)).await;
    }
}

impl State {
    fn new() -> Self {
        let keys = KeySet::default();
        Self { keys, read: Bytes::new(), generation: 0, attempts: 0, is_fetching: true, next_at: Time::ZERO }
    }

    fn find(&self, token: &Unverified) -> Option<(Arc<DecodingKey>, u64)> {
        let key = self.keys.find(token.key_id.as_deref(), token.algorithm)?;
        Some((Arc::clone(key), self.generation))
    }

    fn fetched(&mut self, keys: Option<(Bytes, KeySet)>, next_at: Time) {
        if let Some((read, keys)) = keys.filter(|(read, _)| *read != self.read) {
            self.keys = keys;
            self.read = read;
            self.generation += 1;
        }
        self.attempts += 1;
        self.is_fetching = false;
        self.next_at = next_at;
    }
}

async fn refresh(issuer: String, source: Source, state: watch::Sender<State>, wanted: Arc<Notify>) {
    loop {
        state.send_modify(|state| state.is_fetching = true);
        let next_at = clock::now() + FETCH_PAUSE;
        let keys = fetch(&source).await;
        if let Err(error) = &keys {
            tracing::warn!(issuer, error, "the issuer's keys cannot be fetched: the last good ones stay");
        }
        state.send_modify(|state| state.fetched(keys.ok(), next_at));
        sleep_until(clock::instant(next_at)).await;
        let patience = if state.borrow().generation == 0 { Duration::ZERO } else { REFRESH_EVERY };
        // Wanted or not, by then it is time.
        let _ = timeout(patience, wanted.notified()).await;
    }
}

async fn fetch(source: &Source) -> Result<(Bytes, KeySet), String> {
    let read = source.fetch().await.map_err(|error| error.to_string())?;
    let keys = KeySet::parse(&read).map_err(|error| error.to_string())?;
    Ok((read, keys))
}

fn unknown_key() -> Failure {
    invalid("The token's key is not one of its issuer's: ask for a new token")
}

fn unavailable() -> Failure {
    Failure::new(Code::IssuerUnavailable, "The keys of the token's issuer cannot be fetched now: try again").retry_after_ms(5_000)
}
