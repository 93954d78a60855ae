//! core: an incremental parser of server-sent events: bytes in, in any pieces; events out, framed anew as `data: …\n\n`.
//!
//! Lines end with LF, CRLF or CR; comments and fields other than `data` and `event` are dropped, and `event` too where events
//! have no names; an event that the input ends in the middle of never comes out, so that a cut stream cannot look complete.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};
use std::borrow::Cow;

/// The largest event, in bytes: far above any token's, far below what would hurt.
const EVENT_BYTES_MAX: usize = 1 << 20;

const FIELD: &[u8] = b"data: ";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Event(Sse),
    /// A comment or an event without data: the sender's sign that it lives.
    KeepAlive,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sse {
    /// The event as it is passed on: its name, if names are kept, one `data: ` line per line of data, and an empty line.
    pub(crate) frame: Bytes,
    /// Where the first `data: ` line begins.
    data_at: usize,
    /// Its `event` field was `error`.
    pub(crate) is_error: bool,
}

impl Sse {
    /// The data without framing, its lines joined by LF.
    pub(crate) fn data(&self) -> Cow<'_, [u8]> {
        let lines = &self.frame[self.data_at + FIELD.len()..self.frame.len() - 2];
        if memchr(b'\n', lines).is_some() {
            Cow::Owned(lines.split(|b| *b == b'\n').map(|l| l.strip_prefix(FIELD).unwrap_or(l)).collect::<Vec<_>>().join(&b'\n'))
        } else {
            Cow::Borrowed(lines)
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct TooLarge;

#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// Bytes of lines not yet taken.
    waiting: BytesMut,
    /// How many of them are known to hold no line's end.
    scanned: usize,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The name and the `data` lines of the event that is under way, framed.
    frame: BytesMut,
    data_at: usize,
    is_error: bool,
    keeps_names: bool,
}

impl Parser {
    /// Of a stream whose events have names, which are kept.
    pub(crate) fn of_named() -> Self {
        Self { keeps_names: true, ..Self::default() }
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.waiting.extend_from_slice(piece);
    }

    /// The next item of what has been pushed; `None` when more must come first.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, TooLarge> {
        while let Some(line) = self.line()? {
            if let Some(item) = self.take(&line)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// The next complete line, without its end.
    fn line(&mut self) -> Result<Option<BytesMut>, TooLarge> {
        if self.after_cr && !self.waiting.is_empty() {
            self.waiting.advance(usize::from(self.waiting[0] == b'\n'));
            self.after_cr = false;
        }
        let found = memchr2(b'\n', b'\r', &self.waiting[self.scanned..]);
        let length = found.map_or(self.waiting.len(), |offset| self.scanned + offset);
        if length > EVENT_BYTES_MAX {
            return Err(TooLarge);
        }
        if found.is_none() {
            self.scanned = length;
            return Ok(None);
        }
        let mut line = self.waiting.split_to(length + 1);
        self.after_cr = line[length] == b'\r';
        self.scanned = 0;
        line.truncate(length);
        Ok(Some(line))
    }

    fn take(&mut self, line: &[u8]) -> Result<Option<Item>, TooLarge> {
        match field(line) {
            (b"", b"") if line.is_empty() => return Ok(self.dispatch()),
            (b"", _) => return Ok(Some(Item::KeepAlive)),
            (b"data", value) => self.append(value)?,
            (b"event", value) => self.name(value),
            _ => {}
        }
        Ok(None)
    }

    /// A name that comes behind its data, which no server sends, is dropped.
    fn name(&mut self, name: &[u8]) {
        self.is_error = name == b"error";
        if self.keeps_names && self.frame.len() == self.data_at {
            self.frame.clear();
            for part in [b"event: ", name, b"\n"] {
                self.frame.extend_from_slice(part);
            }
            self.data_at = self.frame.len();
        }
    }

    fn append(&mut self, value: &[u8]) -> Result<(), TooLarge> {
        if self.frame.len() + value.len() > EVENT_BYTES_MAX {
            return Err(TooLarge);
        }
        for part in [FIELD, value, b"\n"] {
            self.frame.extend_from_slice(part);
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Option<Item> {
        let (is_error, data_at) = (std::mem::take(&mut self.is_error), std::mem::take(&mut self.data_at));
        if self.frame.len() == data_at {
            self.frame.clear();
            return None;
        }
        self.frame.extend_from_slice(b"\n");
        let event = Sse { frame: self.frame.split().freeze(), data_at, is_error };
        if event.data().trim_ascii().is_empty() { Some(Item::KeepAlive) } else { Some(Item::Event(event)) }
    }
}

/// A line's name and value; a comment's name is empty.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b':', line) {
        Some(colon) => (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..])),
        None => (line, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<Item, TooLarge>> {
        parse_with(Parser::default(), pieces)
    }

    fn parse_with<'a>(mut parser: Parser, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<Item, TooLarge>> {
        let mut items = Vec::new();
        for piece in pieces {
            parser.push(piece);
            while let Some(item) = parser.next().transpose() {
                let failed = item.is_err();
                items.push(item);
                if failed {
                    return items;
                }
            }
        }
        items
    }

    fn event(frame: &str) -> Item {
        Item::Event(Sse { frame: Bytes::copy_from_slice(frame.as_bytes()), data_at: 0, is_error: false })
    }

    fn parsed(text: &str) -> Vec<Item> {
        parse([text.as_bytes()]).into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn all_three_line_ends_mean_the_same() {
        for end in ["\n", "\r\n", "\r"] {
            let text = "data: a\n\ndata:b\n\ndata: [DONE]\n\n".replace('\n', end);
            assert_eq!(parsed(&text), [event("data: a\n\n"), event("data: b\n\n"), event("data: [DONE]\n\n")], "{end:?}");
        }
    }

    #[test]
    fn a_cr_ends_its_line_without_waiting_for_an_lf() {
        assert_eq!(parse([b"data: a\r\r".as_slice()]), [Ok(event("data: a\n\n"))]);
    }

    #[test]
    fn several_data_lines_are_one_event() {
        let items = parsed("data: {\"a\":\ndata:  1}\n\n");
        assert_eq!(items, [event("data: {\"a\":\ndata:  1}\n\n")]);
        let Item::Event(event) = &items[0] else { unreachable!() };
        assert_eq!(event.data().as_ref(), b"{\"a\":\n 1}");
    }

    #[test]
    fn other_fields_are_dropped_and_comments_show_life() {
        assert_eq!(parsed(": ping\nid: 7\nretry: 1\ndata: a\n\n\n\n"), [Item::KeepAlive, event("data: a\n\n")]);
        assert_eq!(parsed("data:\n\n"), [Item::KeepAlive]);
    }

    #[test]
    fn names_come_along_where_they_are_kept_and_are_no_data() {
        let mut parser = Parser::of_named();
        parser.push(b"event: lost\n\nevent:first\nevent: a.b\ndata: 1\ndata: 2\n\ndata: 3\nevent: late\n\n");
        let mut next = || match parser.next().unwrap() {
            Some(Item::Event(event)) => (String::from_utf8(event.frame.to_vec()).unwrap(), event.data().into_owned()),
            other => panic!("{other:?}"),
        };
        assert_eq!(next(), ("event: a.b\ndata: 1\ndata: 2\n\n".into(), b"1\n2".to_vec()));
        assert_eq!(next(), ("data: 3\n\n".into(), b"3".to_vec()));
    }

    #[test]
    fn an_error_event_is_marked_and_only_it() {
        let marks: Vec<_> = parsed("event: error\ndata: a\n\ndata: b\n\nevent: x\ndata: c\n\n")
            .into_iter()
            .map(|item| matches!(item, Item::Event(Sse { is_error: true, .. })))
            .collect();
        assert_eq!(marks, [true, false, false]);
    }

    #[test]
    fn an_unfinished_event_never_comes_out() {
        assert_eq!(parsed("data: a\n\ndata: b\n"), [event("data: a\n\n")]);
    }

    #[test]
    fn an_event_above_the_limit_is_refused_with_or_without_a_line_end() {
        let endless = vec![b'x'; EVENT_BYTES_MAX + 1];
        assert_eq!(parse([endless.as_slice()]), [Err(TooLarge)]);
        let many = b"data: 0123456789\n".repeat(EVENT_BYTES_MAX / 16 + 1);
        assert_eq!(parse([many.as_slice()]), [Err(TooLarge)]);
        let fits = [b"data: ", &endless[..EVENT_BYTES_MAX - 6], b"\n\n"].concat();
        assert!(matches!(&parse([fits.as_slice()])[..], [Ok(Item::Event(_))]));
    }

    fn line() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["data: {\"x\":\"häß 🦀\"}", "data:b", ": c", "event: error", "event: m", "id: 1", "", "", "data"])
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(
            lines in prop::collection::vec((line(), prop::sample::select(vec!["\n", "\r\n", "\r"])), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes: Vec<u8> = lines.iter().flat_map(|(line, end)| [line.as_bytes(), end.as_bytes()].concat()).collect();
            let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            at.sort_unstable();
            let pieces = at.windows(2).map(|w| &bytes[w[0]..w[1]]);
            for parser in [Parser::default, Parser::of_named] {
                let whole = parse_with(parser(), [bytes.as_slice()]);
                prop_assert_eq!(&parse_with(parser(), pieces.clone()), &whole);
                prop_assert_eq!(parse_with(parser(), bytes.chunks(1)), whole);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_and_their_pieces_are_the_same(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1..9usize) {
            prop_assert_eq!(parse(bytes.chunks(size)), parse([bytes.as_slice()]));
        }
    }
}
