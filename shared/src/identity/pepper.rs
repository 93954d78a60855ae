//! core: what is kept of a key in place of its text: HMAC-SHA-256 under a pepper, which lives in the configuration and
//! never in the store. Peppers have versions, so that a new one can come while keys of the old are still in use.
//!
//! A slow hash would add nothing: the secret has 256 bits, and nobody guesses those.

use super::objects::Digest;
use crate::config::PepperConfig;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use std::fmt;

pub struct Peppers {
    current: u32,
    /// A handful: searched one by one.
    keys: Vec<(u32, Key)>,
}

impl Peppers {
    pub fn new(config: &PepperConfig) -> Self {
        let key = |secret: &str| Key::new(HMAC_SHA256, secret.as_bytes());
        let keys = config.values.iter().map(|(version, secret)| (*version, key(secret.expose()))).collect();
        Self { current: config.current, keys }
    }

    /// What is kept of a key, under the current pepper.
    pub fn digest(&self, key: &[u8]) -> Digest {
        let hash = self.hash(self.current, key).expect("the configuration has a value for the current pepper");
        Digest { pepper: self.current, hash, until: None }
    }

    /// Which of the digests is of this key. Takes at least one HMAC, though there be no digest: the time tells nobody
    /// whether an id exists.
    pub(super) fn find<'a>(&self, key: &[u8], digests: &'a [Digest]) -> Option<&'a Digest> {
        if digests.is_empty() {
            std::hint::black_box(self.digest(key));
        }
        digests.iter().find(|digest| {
            let hash = self.hash(digest.pepper, key);
            hash.is_some_and(|hash| verify_slices_are_equal(&hash, &digest.hash).is_ok())
        })
    }

    fn hash(&self, version: u32, text: &[u8]) -> Option<[u8; 32]> {
        let (_, key) = self.keys.iter().find(|(known, _)| *known == version)?;
        sign(key, text).as_ref().try_into().ok()
    }
}

impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<u32> = self.keys.iter().map(|(version, _)| *version).collect();
        f.debug_struct("Peppers").field("current", &self.current).field("versions", &versions).finish()
    }
}
