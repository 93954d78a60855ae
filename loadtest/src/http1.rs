//! core: the answers of an HTTP/1.1 connection, decoded as bytes come in. Only what a load generator needs: status, length, chunks.

use bytes::{Buf, BytesMut};

/// A head or a chunk's size line longer than this is no HTTP.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// The longest answer read: far above any scenario's, and a bound for a server that never ends.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not HTTP/1.1: {0}")]
pub struct Malformed(&'static str);

/// Decodes one answer. A new one for each.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    head: Head,
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// The connection ends with this answer.
    pub closes: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// Bytes of the body still to come.
    Length(usize),
    ChunkSize,
    /// Bytes of this chunk still to come.
    Chunk(usize),
    ChunkEnd,
    Trailer,
    UntilClose,
    Done,
}

impl Decoder {
    pub const fn head(&self) -> Head {
        self.head
    }

    /// Takes what it can from `input` and adds to `body`. True when the answer is whole.
    pub fn decode(&mut self, input: &mut BytesMut, body: &mut Vec<u8>) -> Result<bool, Malformed> {
        while self.state != State::Done {
            let Some(next) = self.step(input, body)? else { return Ok(false) };
            self.state = next;
        }
        Ok(true)
    }

    /// The server has closed the connection. True when that is a proper end.
    pub fn closed(&self) -> bool {
        self.state == State::UntilClose
    }

    /// The next state; `None` until more bytes come.
    fn step(&mut self, input: &mut BytesMut, body: &mut Vec<u8>) -> Result<Option<State>, Malformed> {
        match self.state {
            State::Head => self.read_head(input),
            State::Length(left) => Ok(take(input, left, body)?.map_or(Some(State::Done), |left| self.wait(State::Length(left)))),
            State::ChunkSize => Ok(line(input)?.map(|line| chunk(&line)).transpose()?),
            State::Chunk(left) => Ok(take(input, left, body)?.map_or(Some(State::ChunkEnd), |left| self.wait(State::Chunk(left)))),
            State::ChunkEnd => Ok(line(input)?.map(|_| State::ChunkSize)),
            State::Trailer => Ok(line(input)?.map(|line| if line.is_empty() { State::Done } else { State::Trailer })),
            State::UntilClose => Ok(take(input, usize::MAX, body)?.and(None)),
            State::Done => Ok(None),
        }
    }

    fn wait(&mut self, state: State) -> Option<State> {
        self.state = state;
        None
    }

    fn read_head(&mut self, input: &mut BytesMut) -> Result<Option<State>, Malformed> {
        let Some(end) = find(input, b"\r\n\r\n") else { return bounded(input).map(|()| None) };
        let head = input.split_to(end + 4);
        let mut lines = head[..].split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        self.head.status = status(lines.next().unwrap_or_default()).ok_or(Malformed("no status line"))?;
        let mut body = State::UntilClose;
        for line in lines {
            let Some((name, value)) = split_header(line) else { continue };
            if name.eq_ignore_ascii_case(b"content-length") && body != State::ChunkSize {
                body = State::Length(number(value, 10).ok_or(Malformed("a strange content-length"))?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                body = State::ChunkSize;
            } else if name.eq_ignore_ascii_case(b"connection") {
                self.head.closes = value.eq_ignore_ascii_case(b"close");
            }
        }
        self.head.closes |= body == State::UntilClose;
        Ok(Some(body))
    }
}

/// Moves up to `left` bytes to the body; what is still to come, or `None` when that is nothing.
fn take(input: &mut BytesMut, left: usize, body: &mut Vec<u8>) -> Result<Option<usize>, Malformed> {
    let here = left.min(input.len());
    if body.len() + here > BODY_BYTES_MAX {
        return Err(Malformed("a body without end"));
    }
    body.extend_from_slice(&input[..here]);
    input.advance(here);
    Ok((here < left).then_some(left - here))
}

fn line(input: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    let Some(end) = find(input, b"\r\n") else { return bounded(input).map(|()| None) };
    let mut line = input.split_to(end + 2);
    line.truncate(end);
    Ok(Some(line))
}

fn bounded(input: &BytesMut) -> Result<(), Malformed> {
    if input.len() > LINE_BYTES_MAX { Err(Malformed("a head without end")) } else { Ok(()) }
}

fn chunk(line: &[u8]) -> Result<State, Malformed> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    match number(digits.trim_ascii(), 16).ok_or(Malformed("a strange chunk size"))? {
        0 => Ok(State::Trailer),
        size => Ok(State::Chunk(size)),
    }
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    u16::try_from(number(rest.get(2..5)?, 10)?).ok()
}

fn split_header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer decoded from pieces of `size` bytes: head, body, and what was not taken.
    fn decode(bytes: &[u8], size: usize) -> (Head, String, usize) {
        let (mut decoder, mut input, mut body) = (Decoder::default(), BytesMut::new(), Vec::new());
        let mut pieces = bytes.chunks(size);
        while !decoder.decode(&mut input, &mut body).unwrap() {
            let Some(piece) = pieces.next() else { break };
            input.extend_from_slice(piece);
        }
        (decoder.head(), String::from_utf8(body).unwrap(), input.len() + pieces.map(<[u8]>::len).sum::<usize>())
    }

    #[test]
    fn an_answer_may_come_in_any_pieces() {
        let fixed: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let chunked: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
        for answer in [fixed, chunked] {
            for size in 1..answer.len() {
                assert_eq!(decode(answer, size), (Head { status: 200, closes: false }, "hello".into(), 0));
            }
        }
    }

    #[test]
    fn the_next_answer_is_left_alone() {
        let (head, body, left) = decode(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nConnection: Close\r\n\r\nHTTP", 1_000);
        assert_eq!((head, body.as_str(), left), (Head { status: 503, closes: true }, "", 4));
    }

    #[test]
    fn without_a_length_the_end_of_the_connection_ends_the_body() {
        let (mut decoder, mut body) = (Decoder::default(), Vec::new());
        let mut input = BytesMut::from(&b"HTTP/1.1 200 OK\r\n\r\nhel"[..]);
        assert!(!decoder.decode(&mut input, &mut body).unwrap());
        assert!(decoder.closed() && decoder.head().closes && body == b"hel");
        assert!(!Decoder::default().closed(), "nothing has come: that is no answer");
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in ["SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"] {
            let mut input = BytesMut::from(bytes.as_bytes());
            assert!(Decoder::default().decode(&mut input, &mut Vec::new()).is_err(), "{bytes}");
        }
    }
}
