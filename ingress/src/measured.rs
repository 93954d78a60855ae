//! core: what the micro-benchmarks reach of this crate's inside. For them alone.

use crate::auth::Auth;
use crate::check;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, header};
use shared::config::Limits;
use shared::domain::Operation;
use shared::error::Failure;
use shared::identity::{Caller, Directory, LiveDirectory};
use std::hint::black_box;
use std::sync::Arc;

/// Checks a chat body.
///
/// # Errors
/// What its caller would be told.
pub fn check_chat(body: &Bytes, limits: &Limits) -> Result<(), Failure> {
    check::generation(Operation::Chat, body, limits).map(|view| drop(black_box(view)))
}

/// Checks an embeddings body.
///
/// # Errors
/// What its caller would be told.
pub fn check_embedding(body: &Bytes, limits: &Limits) -> Result<(), Failure> {
    check::embedding(body, limits).map(|view| drop(black_box(view)))
}

/// Where one request after another shows the same key.
pub struct Door {
    auth: Auth,
    headers: HeaderMap,
}

impl Door {
    pub fn new(directory: Directory, key: &str) -> Self {
        let bearer = HeaderValue::try_from(format!("Bearer {key}")).expect("a key is visible ASCII");
        Self {
            auth: Auth::new(Arc::new(LiveDirectory::fixed(directory)), None),
            headers: HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]),
        }
    }

    /// Who is calling.
    ///
    /// # Errors
    /// What its caller would be told.
    pub fn identify(&self) -> Result<Arc<Caller>, Failure> {
        self.auth.identify(&self.headers).now_or_never().expect("a key waits for nothing")
    }
}
