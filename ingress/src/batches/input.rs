//! edge: the input file of a batch, read segment by segment from any place on.

use super::lines::{Cutter, Gathered, Line};
use super::yard::Yard;
use crate::files::PartReader;
use shared::broker::BrokerError;
use shared::jobs::{Cursor, File};
use std::sync::Arc;

pub(super) struct Input {
    parts: PartReader,
    cutter: Cutter,
    /// Lines of a segment.
    lines_max: usize,
    ended: bool,
}

/// The lines of a segment, and from where to where they stand.
pub(super) struct Piece {
    pub(super) lines: Vec<Line>,
    pub(super) start: Cursor,
    pub(super) end: Cursor,
}

impl Input {
    pub(super) fn open(yard: &dyn Yard, file: &File, at: Cursor) -> Self {
        let parts = PartReader { broker: Arc::clone(yard.broker()), content: file.content().clone(), next: at.part, end: file.parts };
        Self { parts, cutter: Cutter::new(at, yard.line_bytes_max()), lines_max: yard.segment_lines_max(), ended: false }
    }

    /// The lines of the next segment; `None` at the end of the file.
    ///
    /// # Errors
    /// `Unavailable`; `Gone` when a part of the file is not there.
    pub(super) async fn segment(&mut self) -> Result<Option<Piece>, BrokerError> {
        let (start, mut gathered) = (self.cutter.cursor(), Gathered::default());
        while !gathered.is_full(self.lines_max) {
            match self.line().await? {
                Some(line) => gathered.push(line),
                None => break,
            }
        }
        let end = self.cutter.cursor();
        Ok((!gathered.lines.is_empty()).then_some(Piece { lines: gathered.lines, start, end }))
    }

    async fn line(&mut self) -> Result<Option<Line>, BrokerError> {
        loop {
            if let Some(line) = self.cutter.next() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            let number = self.parts.next;
            match self.parts.next().await? {
                Some(part) => self.cutter.feed(&part, number),
                None => {
                    self.ended = true;
                    return Ok(self.cutter.last());
                }
            }
        }
    }
}
