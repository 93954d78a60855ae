//! core: what can go wrong between us and a nats-server, sorted by what it means: repeat, give up, or tell the caller.

use super::BrokerError;
use async_nats::client::{PublishError, PublishErrorKind, RequestError, RequestErrorKind};
use serde::Deserialize;
use std::error::Error;
use std::{io, iter};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody answers there: the stream or consumer does not exist, or has no leader yet. Nothing was done.
    Absent,
    /// The stream is there, and no message is where one was asked for.
    Nothing,
    /// No answer came: whether it was done is unknown.
    Unknown(String),
    /// Decided for good.
    Final(BrokerError),
}

impl Fault {
    /// Nothing was done: repeating is safe for everything.
    pub(super) fn left_no_trace(&self) -> bool {
        *self == Self::Absent
    }

    /// Repeating may help: safe for what is stored once however often it is said.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Absent | Self::Unknown(_))
    }
}

/// Whether a connection failed at TLS: one side does not trust the other, or does not speak it. Waiting mends neither.
pub(super) fn is_tls(failure: &(dyn Error + 'static)) -> bool {
    let mut causes = iter::successors(Some(failure), |&cause| cause.source());
    causes.any(|cause| cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<rustls::Error>()))
}

/// The server's "no", as it stands in an answer of the JetStream API.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];
const STORE_FAILED: u64 = 10077;
/// Out of memory, storage or an account's share of them; or too many publishes wait already.
const NO_ROOM: [u64; 5] = [10002, 10023, 10028, 10047, 10167];
const MESSAGE_TOO_LARGE: u64 = 10054;
const NOT_FOUND: [u64; 2] = [10014, 10059];
const NO_MESSAGE: u64 = 10037;
const NO_LEADER: u64 = 10008;
const JETSTREAM_DISABLED: [u64; 2] = [10039, 10076];

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal.err_code {
            code if WRONG_LAST_SEQUENCE.contains(&code) => Self::Final(BrokerError::Conflict),
            code if NO_ROOM.contains(&code) => Self::Final(BrokerError::Full),
            // The code says only that it was not stored; the sentence names the limit: "maximum messages per subject exceeded".
            STORE_FAILED if refusal.description.contains("maximum") => Self::Final(BrokerError::Full),
            MESSAGE_TOO_LARGE => Self::Final(BrokerError::TooLarge),
            code if NOT_FOUND.contains(&code) => Self::Absent,
            NO_MESSAGE => Self::Nothing,
            STORE_FAILED | NO_LEADER => Self::Unknown(refusal.description),
            code if JETSTREAM_DISABLED.contains(&code) => Self::Final(BrokerError::Unfit(NO_JETSTREAM.into())),
            code => Self::Final(BrokerError::Unfit(format!("{} (error {code})", refusal.description))),
        }
    }
}

pub(super) const NO_JETSTREAM: &str = "JetStream is not enabled for this account: start nats-server with -js, or enable it for the account";

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::NoResponders => Self::Absent,
            RequestErrorKind::MaxPayloadExceeded => Self::Final(BrokerError::TooLarge),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

impl From<PublishError> for Fault {
    fn from(error: PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Self::Final(BrokerError::TooLarge),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

impl From<Fault> for BrokerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Absent => Self::Unavailable("the stream is not there, or has no leader".into()),
            Fault::Nothing => Self::Gone,
            Fault::Unknown(why) => Self::Unavailable(why),
            Fault::Final(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(err_code: u64, description: &str) -> Fault {
        Refusal { err_code, description: description.into() }.into()
    }

    #[test]
    fn a_refusal_means_one_thing() {
        assert_eq!(fault(10071, "wrong last sequence: 4"), Fault::Final(BrokerError::Conflict));
        assert_eq!(fault(10077, "maximum messages per subject exceeded"), Fault::Final(BrokerError::Full));
        assert_eq!(fault(10077, "disk on fire"), Fault::Unknown("disk on fire".into()));
        assert_eq!(fault(10059, "stream not found"), Fault::Absent);
        assert!(matches!(fault(10100, "filtered consumer not unique on workqueue stream"), Fault::Final(BrokerError::Unfit(_))));
    }
}
