//! core: the record of one model call, as it stands in the usage journal: who called which model when, and what it used.
//! Never a prompt, never a caller's text. An entry of the journal is a frame of them, all of one tenant.

use super::ItemEnd;
use crate::domain::{Lane, Operation, RequestId};
use serde::{Deserialize, Serialize};

/// One execution of a request that has ended, well or badly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When it ended, by the worker's clock, in milliseconds since 1970.
    pub at_ms: u64,
    pub id: RequestId,
    pub tenant: Box<str>,
    /// The id of the key the caller came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<str>>,
    /// The model's public name.
    pub model: Box<str>,
    pub op: Operation,
    pub lane: Lane,
    pub backend: Box<str>,
    /// Tokens.
    pub input: u32,
    pub output: u32,
    /// What they cost, in billionths of a US dollar, at the price of that moment.
    pub nano_usd: u64,
    pub end: ItemEnd,
    /// From the worker's acceptance to the end.
    pub ms: u32,
}

#[cfg(test)]
pub(crate) fn sample(n: u128) -> Call {
    Call {
        at_ms: 1_795_000_000_000,
        id: RequestId(uuid::Uuid::from_u128(n)),
        tenant: "search".into(),
        key: Some("0123456789".into()),
        model: "chat-small".into(),
        op: Operation::Chat,
        lane: Lane::Interactive,
        backend: "openai-0".into(),
        input: 20,
        output: 5,
        nano_usd: 6_000,
        end: ItemEnd::Answered,
        ms: 250,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Part;
    use bytes::Bytes;

    #[test]
    fn a_call_has_its_golden_bytes() {
        let part = Part::encode(&sample(1), Bytes::new());
        let hex: String = part.head.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("usage.golden").trim(), "the journal keeps three months of these");
        assert_eq!(part.decode::<Call>().unwrap(), sample(1));
    }
}
