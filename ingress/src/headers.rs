//! core: what the ingress reads from a request's headers.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use shared::config::REQUEST_TIMEOUT_MAX;
use shared::error::{Code, Failure};
use std::time::Duration;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const REQUEST_ID_LEN_MAX: usize = 128;

/// The caller's own request id, where it is one that a log can hold: `[A-Za-z0-9_.:-]{1,128}`.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let value = headers.get(REQUEST_ID)?;
    let fits = (1..=REQUEST_ID_LEN_MAX).contains(&value.len());
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_.:-".contains(b);
    (fits && value.as_bytes().iter().all(plain)).then_some(value)
}

/// How long the caller waits; `default` when they do not say.
///
/// # Errors
/// `invalid_header` for anything but one whole number of milliseconds from 1 to an hour.
pub(crate) fn request_timeout(headers: &HeaderMap, default: Duration) -> Result<Duration, Failure> {
    let mut values = headers.get_all(REQUEST_TIMEOUT_MS).iter();
    let Some(value) = values.next() else { return Ok(default) };
    let ms = std::str::from_utf8(value.as_bytes()).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse().ok());
    match ms.map(Duration::from_millis) {
        Some(timeout) if !timeout.is_zero() && timeout <= REQUEST_TIMEOUT_MAX && values.next().is_none() => Ok(timeout),
        _ => Err(invalid_timeout()),
    }
}

fn invalid_timeout() -> Failure {
    let max = REQUEST_TIMEOUT_MAX.as_millis();
    let message = format!("{REQUEST_TIMEOUT_MS} must be one whole number of milliseconds from 1 to {max}");
    Failure::new(Code::InvalidHeader, message).param(REQUEST_TIMEOUT_MS.as_str())
}

/// The caller's W3C trace context. One that is not well-formed is dropped, as the standard says; none is invented.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<Box<str>> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let fields: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = fields[..] else { return None };
    let hex = |field: &str, len: usize| field.len() == len && field.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let set = |field: &str| field.bytes().any(|b| b != b'0');
    let sound = hex(version, 2) && version != "ff" && hex(trace, 32) && set(trace) && hex(parent, 16) && set(parent) && hex(flags, 2);
    sound.then(|| text.into())
}

/// Refuses a body that says it is something other than plain JSON. One that does not say is taken to be.
pub(crate) fn expect_json(headers: &HeaderMap) -> Result<(), Failure> {
    let is_json = headers.get(header::CONTENT_TYPE).is_none_or(|value| media_type(value).eq_ignore_ascii_case(b"application/json"));
    let is_plain = headers.get(header::CONTENT_ENCODING).is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_json && is_plain {
        return Ok(());
    }
    let message = "Send the body uncompressed, with content-type: application/json";
    Err(Failure::new(Code::UnsupportedMediaType, message))
}

fn media_type(value: &HeaderValue) -> &[u8] {
    let bytes = value.as_bytes();
    let end = bytes.iter().position(|b| *b == b';').unwrap_or(bytes.len());
    bytes[..end].trim_ascii()
}

/// The length of the body, where the caller declares it.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the caller waits for a go-ahead before it sends the body.
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        headers
    }

    #[test]
    fn only_a_request_id_that_a_log_can_hold_is_kept() {
        for good in ["a", "req_1.2:3-4", &"x".repeat(128)] {
            assert!(request_id(&with(REQUEST_ID, good)).is_some(), "{good}");
        }
        for bad in ["", "a b", "a\"b", "ä", &"x".repeat(129)] {
            assert!(request_id(&with(REQUEST_ID, bad)).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_timeout_is_one_number_of_milliseconds_up_to_an_hour() {
        let default = Duration::from_secs(9);
        assert_eq!(request_timeout(&HeaderMap::new(), default), Ok(default));
        assert_eq!(request_timeout(&with(REQUEST_TIMEOUT_MS, "3600000"), default), Ok(REQUEST_TIMEOUT_MAX));
        for bad in ["", "0", "-1", "+1", "1.5", "1s", "3600001", "99999999999999999999"] {
            let failure = request_timeout(&with(REQUEST_TIMEOUT_MS, bad), default).unwrap_err();
            assert_eq!(failure.code, Code::InvalidHeader, "{bad}");
        }
        let mut twice = with(REQUEST_TIMEOUT_MS, "5");
        twice.append(REQUEST_TIMEOUT_MS, HeaderValue::from_static("6"));
        assert!(request_timeout(&twice, default).is_err());
    }

    #[test]
    fn a_well_formed_trace_context_is_carried_and_any_other_dropped() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(traceparent(&with(TRACEPARENT, good)).as_deref(), Some(good));
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        for bad in ["", "x", &good[..54], &good.to_uppercase(), &good.replace("00-4", "ff-4"), &zero] {
            assert_eq!(traceparent(&with(TRACEPARENT, bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_body_that_is_not_plain_json_is_refused_by_its_headers() {
        for good in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(expect_json(&with(header::CONTENT_TYPE, good)).is_ok(), "{good}");
        }
        for bad in ["text/plain", "application/jsonl", "multipart/form-data; boundary=x", ""] {
            assert!(expect_json(&with(header::CONTENT_TYPE, bad)).is_err(), "{bad}");
        }
        assert!(expect_json(&with(header::CONTENT_ENCODING, "gzip")).is_err());
        assert!(expect_json(&HeaderMap::new()).is_ok());
    }
}
