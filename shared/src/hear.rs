//! edge: the messages of a frame that was posted. One that cannot be read, because another release wrote it, is said and
//! left out, and takes no other with it.

use crate::wire::{BadFrame, decode};
use bytes::Bytes;
use serde::de::DeserializeOwned;

/// Every message that can be read, with its body.
pub fn messages<T: DeserializeOwned>(frame: &Bytes) -> Vec<(T, Bytes)> {
    let unread = |error: BadFrame| tracing::warn!(%error, "a message cannot be read");
    let parts = decode(frame).map_err(unread).unwrap_or_default();
    parts.into_iter().filter_map(|part| Some((part.decode().map_err(unread).ok()?, part.body))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FrameWriter, Part};

    #[test]
    fn a_message_that_cannot_be_read_takes_no_other_with_it() {
        let mut frame = FrameWriter::new();
        frame.push(&Part::encode(&"from a newer release", Bytes::new()));
        frame.push(&Part::encode(&7u8, Bytes::from_static(b"body")));
        assert_eq!(messages::<u8>(&frame.take()), [(7, Bytes::from_static(b"body"))]);
        assert!(messages::<u8>(&Bytes::from_static(b"no frame")).is_empty());
    }
}
