//! edge: what a peer answered, before anybody has judged the content: status, form, and the body piece by piece, whether
//! a socket or the sandbox in this process delivers it.

use super::{BackendError, answer, classify};
use crate::sandbox;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use shared::clock;
use std::time::UNIX_EPOCH;

/// The largest whole answer: 2,048 vectors of 4,096 dimensions in base64 are 43 MiB.
const WHOLE_BYTES_MAX: usize = 64 << 20;

/// How much of an error's body is read: only its message is wanted.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// The longest `Retry-After` that is passed on, in seconds, as SDKs obey no longer one.
const RETRY_AFTER_S_MAX: f64 = 120.0;

pub(crate) struct Response {
    status: u16,
    /// What it was asked for may name things that are not there.
    may_lack_it: bool,
    is_event_stream: bool,
    retry_after_ms: Option<u32>,
    body: Body,
}

pub(crate) enum Body {
    Http(Incoming),
    Sandbox(sandbox::Body),
}

/// The connection broke in the middle of a body; says how.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub(crate) String);

#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl From<http::Response<Incoming>> for Response {
    fn from(response: http::Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let is_event_stream = head.headers.get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
        let (status, retry_after_ms) = (head.status.as_u16(), retry_after_ms(&head.headers));
        Self { status, may_lack_it: false, is_event_stream, retry_after_ms, body: Body::Http(body) }
    }
}

impl From<sandbox::Reply> for Response {
    fn from(reply: sandbox::Reply) -> Self {
        let retry_after_ms = reply.retry_after_s().map(|s| s * 1_000);
        Self {
            status: reply.status,
            may_lack_it: false,
            is_event_stream: reply.is_event_stream,
            retry_after_ms,
            body: Body::Sandbox(reply.body),
        }
    }
}

impl Response {
    /// To a request that names an earlier response, or a file, or that many servers have no path for: a 404 may speak of that, and
    /// then nothing is wrong with the server.
    pub(crate) const fn that_may_lack_it(mut self) -> Self {
        self.may_lack_it = true;
        self
    }

    /// The whole body of a success.
    pub(crate) async fn whole(self) -> Result<Bytes, BackendError> {
        if !self.is_success() {
            return Err(self.refusal().await);
        }
        self.body.whole(WHOLE_BYTES_MAX).await.map_err(|unread| match unread {
            Unread::Broken(broken) => classify::broken(&broken.0),
            Unread::TooLarge(_) => classify::malformed(&unread),
        })
    }

    /// The body of a success that is an event stream.
    pub(crate) async fn events(self) -> Result<Body, BackendError> {
        if !self.is_success() {
            return Err(self.refusal().await);
        }
        if self.is_event_stream {
            return Ok(self.body);
        }
        // Some servers report an error in a body beside a 200; it says more than the wrong form does.
        let body = self.whole().await?;
        answer::usage(&body)?;
        Err(classify::malformed(&"a whole answer where a stream was asked for"))
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    async fn refusal(self) -> BackendError {
        let body = self.body.whole(ERROR_BYTES_MAX).await.unwrap_or_default();
        let status = if self.may_lack_it && self.status == 404 { 400 } else { self.status };
        classify::status(status, self.retry_after_ms, answer::complaint(&body).message.as_deref())
    }
}

impl Body {
    /// The next piece. May be dropped and asked again without loss.
    pub(crate) async fn chunk(&mut self) -> Option<Result<Bytes, Broken>> {
        match self {
            Self::Sandbox(body) => body.next().await.map(|piece| piece.map_err(|reset| Broken(reset.to_string()))),
            Self::Http(body) => loop {
                match body.frame().await? {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => return Some(Ok(data)),
                        Err(_trailers) => {}
                    },
                    Err(error) => return Some(Err(Broken(classify::with_causes(&error)))),
                }
            },
        }
    }

    /// Everything up to the end; copied only when it came in more than one piece.
    async fn whole(mut self, bytes_max: usize) -> Result<Bytes, Unread> {
        let first = self.chunk().await.transpose()?.unwrap_or_default();
        let Some(second) = self.chunk().await.transpose()? else { return capped(first, bytes_max) };
        let mut whole = BytesMut::with_capacity((first.len() + second.len()) * 2);
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&second);
        while let Some(piece) = self.chunk().await.transpose()? {
            if whole.len() + piece.len() > bytes_max {
                return Err(Unread::TooLarge(bytes_max));
            }
            whole.extend_from_slice(&piece);
        }
        capped(whole.freeze(), bytes_max)
    }
}

fn capped(body: Bytes, bytes_max: usize) -> Result<Bytes, Unread> {
    if body.len() > bytes_max { Err(Unread::TooLarge(bytes_max)) } else { Ok(body) }
}

/// `retry-after-ms`, else `retry-after`: in seconds, or the date that it will be then.
fn retry_after_ms(headers: &HeaderMap) -> Option<u32> {
    let date = |value: &http::HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok()?.duration_since(UNIX_EPOCH).ok();
    let number = |value: &http::HeaderValue| value.to_str().ok()?.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    let ms = headers.get("retry-after-ms").and_then(number);
    let after = headers.get(RETRY_AFTER);
    let seconds = ms.map(|ms| ms / 1_000.0).or_else(|| after.and_then(number));
    let seconds = seconds.or_else(|| Some(after.and_then(date)?.saturating_sub(clock::unix()).as_secs_f64()))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 120,000")]
    Some((seconds.min(RETRY_AFTER_S_MAX) * 1_000.0).ceil() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(pairs: &[(&'static str, &'static str)]) -> Option<u32> {
        let headers = pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
        retry_after_ms(&headers)
    }

    #[test]
    fn retry_after_is_read_in_both_units_and_capped() {
        assert_eq!(read(&[("retry-after", "2")]), Some(2_000));
        assert_eq!(read(&[("retry-after", "2"), ("retry-after-ms", "30.5")]), Some(31));
        assert_eq!(read(&[("retry-after", "86400")]), Some(120_000));
        assert_eq!(read(&[("retry-after", "-1")]), None);
        assert_eq!(read(&[("retry-after", "Fri, 31 Dec 2027")]), None);
    }

    #[test]
    fn retry_after_may_be_a_date() {
        let at = |seconds| httpdate::fmt_http_date(UNIX_EPOCH + clock::unix() + Duration::from_secs(seconds));
        let read = |date: String| retry_after_ms(&[(RETRY_AFTER, date.parse().unwrap())].into_iter().collect());
        assert!(matches!(read(at(30)), Some(28_000..=30_000)));
        assert_eq!(read(at(9_999)), Some(120_000));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT".into()), Some(0), "it is over");
    }
}
