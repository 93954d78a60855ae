//! edge: a file being written: its bytes gather into parts of one size, each stored as soon as it is full.

use bytes::{Bytes, BytesMut};
use shared::broker::{Broker, BrokerError, Store};
use shared::domain::Token;
use shared::jobs::{File, PART_BYTES};

pub(crate) struct FileWriter<'a> {
    broker: &'a dyn Broker,
    content: Token,
    part: BytesMut,
    pub(crate) parts: u32,
    pub(crate) bytes: u64,
    /// Lines that are not blank.
    pub(crate) lines: u64,
    in_line: bool,
    /// Of all that was written, where it is wanted.
    hasher: Option<blake3::Hasher>,
}

impl<'a> FileWriter<'a> {
    pub(crate) fn new(broker: &'a dyn Broker, content: Token) -> Self {
        Self { broker, content, part: BytesMut::new(), parts: 0, bytes: 0, lines: 0, in_line: false, hasher: None }
    }

    /// One that can say what was written: see [`FileWriter::hash`].
    pub(crate) fn hashing(self) -> Self {
        Self { hasher: Some(blake3::Hasher::new()), ..self }
    }

    pub(crate) fn hash(&self) -> Option<blake3::Hash> {
        self.hasher.as_ref().map(blake3::Hasher::finalize)
    }

    /// # Errors
    /// `Full`, `Unavailable`.
    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), BrokerError> {
        self.count_lines(&bytes);
        self.bytes += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        while !bytes.is_empty() {
            let room = PART_BYTES - self.part.len();
            self.part.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.part.len() == PART_BYTES {
                self.store().await?;
            }
        }
        Ok(())
    }

    /// Stores what is left.
    ///
    /// # Errors
    /// `Full`, `Unavailable`.
    pub(crate) async fn finish(&mut self) -> Result<(), BrokerError> {
        self.lines += u64::from(std::mem::take(&mut self.in_line));
        if self.part.is_empty() { Ok(()) } else { self.store().await }
    }

    /// Deletes what was stored: the file did not come to be.
    pub(crate) async fn abandon(self) {
        for part in 0..self.parts {
            if let Err(error) = self.broker.blob_delete(Store::Files, &File::part_key(&self.content, part)).await {
                tracing::warn!(%error, "a part of an unfinished file is left behind");
            }
        }
    }

    async fn store(&mut self) -> Result<(), BrokerError> {
        let part = self.part.split().freeze();
        self.broker.blob_put(Store::Files, &File::part_key(&self.content, self.parts), part).await?;
        self.parts += 1;
        Ok(())
    }

    fn count_lines(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.in_line |= piece.iter().any(|byte| !byte.is_ascii_whitespace());
            if piece.ends_with(b"\n") {
                self.lines += u64::from(std::mem::take(&mut self.in_line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::broker::memory::MemoryBroker;

    #[tokio::test]
    async fn parts_are_full_but_the_last_and_blank_lines_do_not_count() {
        let broker = MemoryBroker::new();
        let mut writer = FileWriter::new(broker.as_ref(), Token::parse("file-1").unwrap());
        let text = [b"a\n \r\n\nb".as_slice(), &vec![b'x'; PART_BYTES], b"\nlast"].concat();
        for piece in text.chunks(100_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        writer.finish().await.unwrap();
        assert_eq!((writer.parts, writer.bytes, writer.lines), (2, text.len() as u64, 3));
        let first = broker.blob_get(Store::Files, "file-1.0").await.unwrap().unwrap();
        let second = broker.blob_get(Store::Files, "file-1.1").await.unwrap().unwrap();
        assert_eq!((first.len(), [first, second].concat()), (PART_BYTES, text));
        writer.abandon().await;
        assert_eq!(broker.blob_get(Store::Files, "file-1.0").await.unwrap(), None);
    }
}
