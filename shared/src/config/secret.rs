//! edge: a secret, by reference (`env:NAME`, `file:PATH`) or literally. Never printed.

use std::fmt;

/// A key that shows itself to nobody but [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The shortest literal or referenced key: shorter ones are typing mistakes.
const LEN_MIN: usize = 6;

impl Secret {
    /// Takes a key as it is. It must be 6 or more visible ASCII characters.
    pub fn literal(key: &str) -> Result<Self, String> {
        if key.starts_with("tm_") {
            return Err("a key of the form tm_… is one that Tidemill issues; choose another form".into());
        }
        if key.len() < LEN_MIN || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("a key must be {LEN_MIN} or more visible ASCII characters, without spaces"));
        }
        Ok(Self(key.to_owned()))
    }

    /// Resolves `env:NAME`, `file:PATH`, or a literal.
    pub fn resolve(reference: &str) -> Result<Self, String> {
        if let Some(name) = reference.strip_prefix("env:") {
            let value = std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?;
            return Self::literal(value.trim()).map_err(|e| format!("in the environment variable {name}: {e}"));
        }
        if let Some(path) = reference.strip_prefix("file:") {
            let value = std::fs::read_to_string(path).map_err(|e| format!("the key file {path} cannot be read: {e}"))?;
            return Self::literal(value.trim()).map_err(|e| format!("in the key file {path}: {e}"));
        }
        Self::literal(reference)
    }

    /// Whether a reference holds the key itself.
    pub fn is_literal(reference: &str) -> bool {
        !reference.starts_with("env:") && !reference.starts_with("file:")
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[secret]")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_itself() {
        let key = Secret::resolve("sk-canary-1234").unwrap();
        assert!(!format!("{key:?}").contains("canary"));
        assert_eq!(key.expose(), "sk-canary-1234");
    }

    #[test]
    fn what_cannot_be_a_key_is_refused_without_repeating_it() {
        for bad in ["", "short", "with space", "sk-\u{e9}clair", "tm_x_issuedlooking"] {
            let error = Secret::resolve(bad).unwrap_err();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
        assert!(Secret::resolve("env:TIDEMILL_TEST_NOT_SET").unwrap_err().contains("TIDEMILL_TEST_NOT_SET"));
    }
}
