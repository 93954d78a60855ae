//! core: a file cut into lines, and lines into segments: by content alone, so that whoever drives a batch on cuts the same.

use bytes::{Buf, Bytes, BytesMut};
use shared::jobs::Cursor;

/// Lines of a segment, unless its driver is told otherwise: a few full backend batches.
pub(crate) const SEGMENT_LINES_MAX: usize = 256;

/// Bytes of a segment's lines, from which on it takes no more.
const SEGMENT_BYTES_MAX: usize = 512 * 1024;

/// What some editors write at the beginning of a file in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// In the file, from 1; blank ones count.
    pub(crate) number: u64,
    /// `None`: it is longer than a request may be.
    pub(crate) text: Option<Bytes>,
}

/// Finds the lines of a file that is fed in part by part.
#[derive(Debug)]
pub(crate) struct Cutter {
    /// Where what was not yet cut begins: in which part, at which byte, behind how many lines.
    at: Cursor,
    part: Bytes,
    /// The beginning of a line that earlier parts hold.
    begun: BytesMut,
    overlong: bool,
    line_bytes_max: usize,
}

impl Cutter {
    /// Begins at a place in the file. The first part to be fed is the cursor's.
    pub(crate) fn new(at: Cursor, line_bytes_max: usize) -> Self {
        Self { at, part: Bytes::new(), begun: BytesMut::new(), overlong: false, line_bytes_max }
    }

    /// Where the next line begins, unless a line is begun.
    pub(crate) const fn cursor(&self) -> Cursor {
        self.at
    }

    /// The next part, when [`Cutter::next`] has come to the end of the one before.
    pub(crate) fn feed(&mut self, part: &Bytes, number: u32) {
        if number != self.at.part {
            self.at = Cursor { part: number, offset: 0, ..self.at };
        }
        self.part = part.slice((self.at.offset as usize).min(part.len())..);
    }

    /// The next line; `None` when the part is used up.
    pub(crate) fn next(&mut self) -> Option<Line> {
        while let Some(end) = memchr::memchr(b'\n', &self.part) {
            let rest = self.part.split_to(end + 1);
            self.at.offset += u32::try_from(rest.len()).expect("a part is below 4 GiB");
            if let Some(line) = self.close(&rest[..end]) {
                return Some(line);
            }
        }
        let rest = std::mem::take(&mut self.part);
        self.at.offset += u32::try_from(rest.len()).expect("a part is below 4 GiB");
        self.extend(&rest);
        None
    }

    /// The last line, where no line break follows it.
    pub(crate) fn last(&mut self) -> Option<Line> {
        if self.begun.is_empty() && !self.overlong { None } else { self.close(&[]) }
    }

    fn extend(&mut self, piece: &[u8]) {
        self.overlong |= self.begun.len() + piece.len() > self.line_bytes_max;
        if self.overlong {
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(piece);
        }
    }

    fn close(&mut self, end: &[u8]) -> Option<Line> {
        self.extend(end);
        self.at.line += 1;
        let mut text = self.begun.split().freeze();
        if self.at.line == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.advance(BYTE_ORDER_MARK.len());
        }
        if std::mem::take(&mut self.overlong) {
            return Some(Line { number: self.at.line, text: None });
        }
        let is_blank = text.iter().all(u8::is_ascii_whitespace);
        (!is_blank).then_some(Line { number: self.at.line, text: Some(text) })
    }
}

/// The lines of one segment, and where it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) lines: Vec<Line>,
    bytes: usize,
}

impl Gathered {
    pub(crate) fn push(&mut self, line: Line) {
        self.bytes += line.text.as_ref().map_or(0, Bytes::len);
        self.lines.push(line);
    }

    pub(crate) fn is_full(&self, lines_max: usize) -> bool {
        self.lines.len() >= lines_max || self.bytes >= SEGMENT_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(parts: &[Bytes], from: Cursor, max: usize) -> Vec<(Line, Cursor)> {
        let mut cutter = Cutter::new(from, max);
        let mut lines = Vec::new();
        for (number, part) in parts.iter().enumerate().skip(from.part as usize) {
            cutter.feed(part, u32::try_from(number).unwrap());
            while let Some(line) = cutter.next() {
                lines.push((line, cutter.cursor()));
            }
        }
        let last = cutter.last();
        lines.extend(last.map(|line| (line, cutter.cursor())));
        lines
    }

    fn parts(text: &[u8], size: usize) -> Vec<Bytes> {
        text.chunks(size).map(Bytes::copy_from_slice).collect()
    }

    #[test]
    fn blank_lines_count_and_are_left_out() {
        let lines = all(&parts(b"a\n\n  \r\nb\r\nlast", 100), Cursor::default(), 100);
        let seen: Vec<(u64, &[u8])> = lines.iter().map(|(line, _)| (line.number, &line.text.as_ref().unwrap()[..])).collect();
        assert_eq!(seen, [(1, &b"a"[..]), (4, b"b\r"), (5, b"last")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_not_kept() {
        let lines = all(&parts(b"aaaaaaaaaa\nb\ncccccc", 3), Cursor::default(), 5);
        let seen: Vec<(u64, Option<&[u8]>)> = lines.iter().map(|(line, _)| (line.number, line.text.as_deref())).collect();
        assert_eq!(seen, [(1, None), (2, Some(&b"b"[..])), (3, None)]);
    }

    #[test]
    fn a_byte_order_mark_is_no_text_where_a_file_begins() {
        for size in 1..=20 {
            let parts = parts("\u{feff}a\n\u{feff}b\nc\n".as_bytes(), size);
            let lines = all(&parts, Cursor::default(), 100);
            let seen: Vec<(u64, &[u8])> = lines.iter().map(|(line, _)| (line.number, &line.text.as_ref().unwrap()[..])).collect();
            assert_eq!(seen, [(1, &b"a"[..]), (2, "\u{feff}b".as_bytes()), (3, b"c")], "in parts of {size} bytes");
            assert_eq!(all(&parts, lines[0].1, 100), lines[1..], "from the end of line 1, in parts of {size} bytes");
        }
        assert_eq!(all(&parts("\u{feff}\na".as_bytes(), 100), Cursor::default(), 100).len(), 1, "a line of nothing else is blank");
    }

    proptest! {
        #[test]
        fn however_a_file_lies_in_parts_its_lines_are_the_same(
            text in "([a-c]{0,6}\n){0,12}[a-c]{0,3}", size in 1..9usize, resume in any::<prop::sample::Index>(),
        ) {
            let whole = all(&parts(text.as_bytes(), 1_000), Cursor::default(), 4);
            let lines = all(&parts(text.as_bytes(), size), Cursor::default(), 4);
            let only = |lines: &[(Line, Cursor)]| lines.iter().map(|(line, _)| line.clone()).collect::<Vec<_>>();
            prop_assert_eq!(only(&whole), only(&lines));
            if !lines.is_empty() {
                let n = resume.index(lines.len());
                let rest = all(&parts(text.as_bytes(), size), lines[n].1, 4);
                prop_assert_eq!(&only(&lines)[n + 1..], &only(&rest)[..], "from the end of line {}", n);
            }
        }
    }
}
