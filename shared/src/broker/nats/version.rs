//! core: which nats-server will do. Older ones fail in silence or with a misleading message, so they are refused at once.

use super::BrokerError;
use std::fmt;

/// The version of a nats-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl Version {
    /// Since 2.10 a consumer may name several filters, which 2.9 silently dropped, and key-value streams can be created.
    pub const MIN: Self = Self(2, 10, 0);

    /// Reads `2.10.1`, `v2.10` or `2.12.0-beta.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().trim_start_matches('v').split(['.', '-', '+']).map(|n| n.parse().ok());
        Some(Self(numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
    }

    /// The version a server reported, if it will do.
    ///
    /// # Errors
    /// `Unfit` when it is older than [`Version::MIN`] or unreadable.
    pub fn check(text: &str) -> Result<Self, BrokerError> {
        match Self::parse(text) {
            Some(version) if version >= Self::MIN => Ok(version),
            _ => Err(BrokerError::Unfit(format!("nats-server {text} is too old: install {} or newer", Self::MIN))),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_before_2_10_is_refused() {
        for old in ["2.9.10", "1.99.0", "0.0.0", "", "newest"] {
            assert!(matches!(Version::check(old), Err(BrokerError::Unfit(why)) if why.contains("2.10.0")), "{old}");
        }
        for fit in ["2.10.0", "v2.10", "2.15.1", "2.12.0-beta.1", "3.0.0"] {
            assert!(Version::check(fit).is_ok(), "{fit}");
        }
    }
}
