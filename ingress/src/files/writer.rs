//! edge: a file being written: its bytes gather into parts of one size, each stored as soon as it is full.

use bytes::{Bytes, BytesMut};
use shared::broker::{Broker, BrokerError, Store};
use shared::domain::Token;
use shared::jobs::{File, PART_BYTES};
use shared::task;
use std::sync::Arc;

/// Unless it is told that the file may be on record, what was stored is deleted when it goes: whoever sent it may leave at any time.
pub(crate) struct FileWriter {
    broker: Arc<dyn Broker>,
    content: Token,
    is_kept: bool,
    part: BytesMut,
    pub(crate) parts: u32,
    pub(crate) bytes: u64,
    /// Lines that are not blank.
    pub(crate) lines: u64,
    in_line: bool,
    /// Of all that was written, where it is wanted.
    hasher: Option<blake3::Hasher>,
}

impl FileWriter {
    /// `hashes`: it can say what was written; see [`FileWriter::hash`].
    pub(crate) fn new(broker: Arc<dyn Broker>, content: Token, hashes: bool) -> Self {
        let hasher = hashes.then(blake3::Hasher::new);
        Self { broker, content, is_kept: false, part: BytesMut::new(), parts: 0, bytes: 0, lines: 0, in_line: false, hasher }
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

    /// The file may be on record from now on.
    pub(crate) const fn keep(&mut self) {
        self.is_kept = true;
    }

    /// The file is not on record after all.
    pub(crate) fn discard(mut self) {
        self.is_kept = false;
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

impl Drop for FileWriter {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // The last one may be stored in part.
        let (broker, content, parts) = (Arc::clone(&self.broker), self.content.clone(), 0..=self.parts);
        task::spawn("unfinished file", async move {
            for part in parts {
                if let Err(error) = broker.blob_delete(Store::Files, &File::part_key(&content, part)).await {
                    tracing::warn!(%error, "a part of an unfinished file is left behind");
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::broker::memory::MemoryBroker;

    #[tokio::test]
    async fn parts_are_full_but_the_last_and_blank_lines_do_not_count() {
        let broker = MemoryBroker::new();
        let mut writer = FileWriter::new(broker.clone(), Token::parse("file-1").unwrap(), false);
        let text = [b"a\n \r\n\nb".as_slice(), &vec![b'x'; PART_BYTES], b"\nlast"].concat();
        for piece in text.chunks(100_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        writer.finish().await.unwrap();
        assert_eq!((writer.parts, writer.bytes, writer.lines), (2, text.len() as u64, 3));
        let first = broker.blob_get(Store::Files, "file-1.0").await.unwrap().unwrap();
        let second = broker.blob_get(Store::Files, "file-1.1").await.unwrap().unwrap();
        assert_eq!((first.len(), [first, second].concat()), (PART_BYTES, text));
        writer.keep();
        drop(writer);
        tokio::task::yield_now().await;
        assert!(broker.blob_get(Store::Files, "file-1.0").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_not_kept_goes_with_its_writer() {
        let broker = MemoryBroker::new();
        let mut writer = FileWriter::new(broker.clone(), Token::parse("file-1").unwrap(), false);
        writer.write(vec![b'x'; PART_BYTES + 1].into()).await.unwrap();
        writer.finish().await.unwrap();
        drop(writer);
        tokio::task::yield_now().await;
        for key in ["file-1.0", "file-1.1"] {
            assert_eq!(broker.blob_get(Store::Files, key).await.unwrap(), None);
        }
    }
}
