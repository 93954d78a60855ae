//! core: server-sent events out of bytes in any pieces. Handles CRLF, comments, events of several lines and split UTF-8.

/// The longest event accepted, in bytes: far above one piece of an answer, and a bound for a server that never ends its line.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An event longer than this parser accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {EVENT_BYTES_MAX} bytes")]
pub struct TooLong;

/// Collects bytes and gives out the `data` of whole events.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl Parser {
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.buffer.len() + self.data.len() + bytes.len() > EVENT_BYTES_MAX {
            return Err(TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The data of the next whole event, its lines joined; `None` until more bytes come.
    pub fn next_event(&mut self) -> Option<String> {
        while let Some(line) = self.next_line() {
            if line.is_empty() && self.has_data {
                self.has_data = false;
                return Some(String::from_utf8_lossy(&std::mem::take(&mut self.data)).into_owned());
            }
            self.field(&line);
        }
        None
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|&b| b == b'\n')?;
        let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }

    fn field(&mut self, line: &[u8]) {
        let Some(value) = line.strip_prefix(b"data:") else { return };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        self.has_data = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        let mut all = Vec::new();
        for piece in pieces {
            parser.push(piece).unwrap();
            all.extend(std::iter::from_fn(|| parser.next_event()));
        }
        all
    }

    #[test]
    fn pieces_may_end_anywhere() {
        let text = "data: {\"a\":\"ä\"}\r\n\r\n: ping\n\ndata: one\ndata: two\n\ndata: [DONE]\n\n".as_bytes();
        let whole = events(&[text]);
        assert_eq!(whole, ["{\"a\":\"ä\"}", "one\ntwo", "[DONE]"]);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(events(&bytes), whole);
    }

    #[test]
    fn an_unfinished_event_is_not_given_out() {
        assert!(events(&[b"data: half\n"]).is_empty());
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'x'; EVENT_BYTES_MAX + 1]), Err(TooLong));
    }
}
