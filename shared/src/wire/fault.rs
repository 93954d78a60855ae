//! core: why a call at a backend failed, as far as it decides what is done next: may another try cure it, and what does it say
//! of the backend, or of the request?

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fault {
    /// No connection: the backend never saw the call.
    #[serde(rename = "connect")]
    Connect,
    /// The connection broke after the call had been sent.
    #[serde(rename = "broken")]
    Broken,
    /// 429.
    #[serde(rename = "limited")]
    RateLimited,
    /// The server, or what stands before it, cannot serve now: 502, 503, 504 and their like.
    #[serde(rename = "unavailable")]
    Unavailable,
    /// 500: what a server says whose code failed on what it was sent.
    #[serde(rename = "error")]
    ServerError,
    #[serde(rename = "timeout")]
    Timeout,
    /// An answer that cannot be read, or that answers another number of inputs.
    #[serde(rename = "malformed")]
    Malformed,
    /// It does not know the model that it is asked for, or the path: 404.
    #[serde(rename = "missing")]
    Missing,
    /// It does not accept our key: 401, 403.
    #[serde(rename = "denied")]
    Denied,
    /// It calls the request itself wrong: 400, 413, 422.
    #[serde(rename = "rejected")]
    Rejected,
}

impl Fault {
    pub const ALL: [Self; 10] = [
        Self::Connect,
        Self::Broken,
        Self::RateLimited,
        Self::Unavailable,
        Self::ServerError,
        Self::Timeout,
        Self::Malformed,
        Self::Missing,
        Self::Denied,
        Self::Rejected,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::RateLimited => "limited",
            Self::Unavailable => "unavailable",
            Self::ServerError => "error",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::Denied => "denied",
            Self::Rejected => "rejected",
        }
    }

    /// Whether another try may end better, here or at another backend.
    pub const fn is_curable(self) -> bool {
        !matches!(self, Self::Rejected)
    }

    /// Whether what was asked may be why: a server that crashes on one input looks so.
    pub const fn may_be_the_requests(self) -> bool {
        matches!(self, Self::Broken | Self::ServerError | Self::Malformed | Self::Rejected)
    }

    /// Whether it passes only when somebody mends something.
    pub const fn is_the_operators(self) -> bool {
        matches!(self, Self::Missing | Self::Denied)
    }

    /// Whether the backend was offered more than it takes now.
    pub const fn is_overload(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_name_of_its_own_which_is_also_its_name_on_the_wire() {
        let names: std::collections::BTreeSet<&str> = Fault::ALL.iter().map(|fault| fault.as_str()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        assert!(Fault::ALL.iter().all(|fault| serde_json::to_value(fault).unwrap() == fault.as_str()));
    }
}
