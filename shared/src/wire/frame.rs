//! core: the frame: many messages in one broker message, so that a busy road pays its fixed costs once.
//!
//! Layout: one version byte, then parts. A part is `head_len: u32`, `body_len: u32` (little endian), the head
//! (MessagePack, maps by field name, so that fields can be added) and the body (raw bytes: the user's JSON is never
//! put through MessagePack and never copied to be read). Decoding slices; it does not copy.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;

/// The version of everything on the wire. A reader refuses another with a clear error.
pub const WIRE_VERSION: u8 = 1;

/// No frame is larger, so that it fits NATS's default `max_payload` of 1 MiB with headers to spare.
pub const FRAME_BYTES_MAX: usize = 768 * 1024;

/// A sender puts at most this many waiting messages into one frame: past it the gain is flat and the loss of one frame grows.
pub const COALESCE_MAX: usize = 64;

/// A part of an answer is at most this large, so that it fits a frame with its head. One that is as large is not the last of what it
/// is a part of.
pub const PART_BYTES_MAX: usize = 512 * 1024;

/// A frame holds at most this many parts: a bound for the reader, above any batch.
const PARTS_MAX: usize = 4_096;

const PART_OVERHEAD: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("the frame is empty")]
    Empty,
    #[error("wire version {found}, this build reads {WIRE_VERSION}: run one release of Tidemill on both sides")]
    Version { found: u8 },
    #[error("the frame ends inside part {part}")]
    Truncated { part: usize },
    #[error("the frame holds more than {PARTS_MAX} parts")]
    TooManyParts,
    #[error("the head of a part is not the expected message: {0}")]
    Head(String),
}

/// One message of a frame, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub head: Bytes,
    pub body: Bytes,
}

impl Part {
    pub fn encode<T: Serialize>(head: &T, body: Bytes) -> Self {
        let mut encoded = BytesMut::with_capacity(HEAD_BYTES_USUAL).writer();
        encode_head(head, &mut encoded);
        Self { head: encoded.into_inner().freeze(), body }
    }

    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, BadFrame> {
        rmp_serde::from_slice(&self.head).map_err(|e| BadFrame::Head(e.to_string()))
    }

    /// The bytes this part takes in a frame.
    pub fn frame_bytes(&self) -> usize {
        PART_OVERHEAD + self.head.len() + self.body.len()
    }
}

/// Room for the usual head, so that encoding it does not grow the buffer step by step.
const HEAD_BYTES_USUAL: usize = 384;

fn encode_head<T: Serialize>(head: &T, into: &mut impl io::Write) {
    rmp_serde::encode::write_named(into, head).expect("wire heads are plain structs, which always encode");
}

/// Builds one frame, part by part.
#[derive(Debug, Default)]
pub struct FrameWriter {
    buffer: BytesMut,
    parts: usize,
}

impl FrameWriter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a part still fits. A part that is too large alone fits an empty frame: the broker then refuses it by name.
    pub fn fits(&self, part: &Part) -> bool {
        self.parts == 0 || (self.parts < COALESCE_MAX && self.buffer.len() + part.frame_bytes() <= FRAME_BYTES_MAX)
    }

    pub fn push(&mut self, part: &Part) {
        if self.buffer.is_empty() {
            self.buffer.reserve(1 + part.frame_bytes());
            self.buffer.put_u8(WIRE_VERSION);
        }
        self.buffer.reserve(part.frame_bytes());
        self.buffer.put_u32_le(len32(&part.head));
        self.buffer.put_u32_le(len32(&part.body));
        self.buffer.put_slice(&part.head);
        self.buffer.put_slice(&part.body);
        self.parts += 1;
    }

    pub const fn is_empty(&self) -> bool {
        self.parts == 0
    }

    /// The frame so far; the writer is empty again.
    pub fn take(&mut self) -> Bytes {
        self.parts = 0;
        self.buffer.split().freeze()
    }
}

fn len32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("parts are far below 4 GiB")
}

/// A frame of one message, its head encoded in place.
pub fn encode_one<T: Serialize>(head: &T, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(1 + PART_OVERHEAD + HEAD_BYTES_USUAL + body.len());
    frame.put_u8(WIRE_VERSION);
    frame.put_u32_le(0); // The head's length, known once it is there.
    frame.put_u32_le(len32(body));
    let mut frame = frame.writer();
    encode_head(head, &mut frame);
    let mut frame = frame.into_inner();
    let head_len = len32(&frame[1 + PART_OVERHEAD..]);
    frame[1..5].copy_from_slice(&head_len.to_le_bytes());
    frame.put_slice(body);
    frame.freeze()
}

/// Takes a frame apart without copying. Refuses anything that is not exactly one well-formed frame.
pub fn decode(frame: &Bytes) -> Result<Vec<Part>, BadFrame> {
    let (&version, _) = frame.split_first().ok_or(BadFrame::Empty)?;
    if version != WIRE_VERSION {
        return Err(BadFrame::Version { found: version });
    }
    let mut parts = Vec::new();
    let mut at = 1;
    while at < frame.len() {
        if parts.len() == PARTS_MAX {
            return Err(BadFrame::TooManyParts);
        }
        let truncated = BadFrame::Truncated { part: parts.len() };
        let head_len = read_len(frame, at).ok_or_else(|| truncated.clone())?;
        let body_len = read_len(frame, at + 4).ok_or_else(|| truncated.clone())?;
        let head_at = at + PART_OVERHEAD;
        let body_at = head_at.checked_add(head_len).ok_or_else(|| truncated.clone())?;
        let end = body_at.checked_add(body_len).filter(|end| *end <= frame.len()).ok_or(truncated)?;
        parts.push(Part { head: frame.slice(head_at..body_at), body: frame.slice(body_at..end) });
        at = end;
    }
    if parts.is_empty() { Err(BadFrame::Empty) } else { Ok(parts) }
}

fn read_len(frame: &Bytes, at: usize) -> Option<usize> {
    let bytes = frame.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(head: u64, body: &'static [u8]) -> Part {
        Part::encode(&head, Bytes::from_static(body))
    }

    #[test]
    fn the_layout_is_fixed() {
        let mut writer = FrameWriter::new();
        writer.push(&part(7, b"{}"));
        writer.push(&part(300, b""));
        let golden: &[u8] = &[1, 1, 0, 0, 0, 2, 0, 0, 0, 7, b'{', b'}', 3, 0, 0, 0, 0, 0, 0, 0, 0xcd, 1, 44];
        assert_eq!(&writer.take()[..], golden);
        assert!(writer.is_empty());
    }

    #[test]
    fn another_version_is_refused_by_number() {
        let error = decode(&Bytes::from_static(&[9, 0, 0])).unwrap_err();
        assert_eq!(error, BadFrame::Version { found: 9 });
    }

    #[test]
    fn a_frame_is_full_at_64_parts_or_768_kib() {
        let mut writer = FrameWriter::new();
        let small = part(1, b"x");
        for _ in 0..COALESCE_MAX {
            assert!(writer.fits(&small));
            writer.push(&small);
        }
        assert!(!writer.fits(&small));
        let mut writer = FrameWriter::new();
        let large = Part::encode(&1u8, Bytes::from(vec![0; FRAME_BYTES_MAX]));
        assert!(writer.fits(&large), "alone, any part travels");
        writer.push(&small);
        assert!(!writer.fits(&large));
    }

    proptest! {
        #[test]
        fn every_frame_decodes_to_its_parts(parts in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..80)), 1..60)) {
            let parts: Vec<Part> = parts.into_iter().map(|(h, b)| Part::encode(&h, b.into())).collect();
            let mut writer = FrameWriter::new();
            parts.iter().for_each(|p| writer.push(p));
            prop_assert_eq!(decode(&writer.take()).unwrap(), parts);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(parts) = decode(&bytes.into()) {
                for part in parts {
                    let _ = part.decode::<crate::wire::Envelope>();
                }
            }
        }

        #[test]
        fn a_cut_frame_is_refused(cut in 1usize..23) {
            let mut writer = FrameWriter::new();
            writer.push(&part(7, b"{}"));
            writer.push(&part(300, b""));
            let whole = writer.take();
            let cut = whole.slice(..cut);
            // The one cut that is a frame again is the one between the two parts.
            prop_assert_eq!(decode(&cut).is_ok(), cut.len() == 12);
        }
    }
}
