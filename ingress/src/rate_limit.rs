//! edge: how a caller's limits stand, in the headers that OpenAI's clients read.

use http::{HeaderMap, HeaderName, HeaderValue};
use shared::quota::{Standing, Window};
use std::fmt::Write as _;

/// Limit, remaining, reset.
type Names = [HeaderName; 3];

const REQUESTS: Names = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: Names = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Adds what is limited; what is not has no header.
pub(crate) fn insert(headers: &mut HeaderMap, standing: &Standing) {
    for (names, window) in [(REQUESTS, standing.requests), (TOKENS, standing.tokens)] {
        if let Some(window) = window {
            insert_window(headers, names, window);
        }
    }
}

fn insert_window(headers: &mut HeaderMap, [limit, remaining, reset]: Names, window: Window) {
    headers.insert(limit, HeaderValue::from(window.limit));
    headers.insert(remaining, HeaderValue::from(window.remaining));
    headers.insert(reset, HeaderValue::try_from(go_duration(window.reset_ms)).expect("digits and letters"));
}

/// Milliseconds as Go writes a duration, which is what the clients parse: `12ms`, `1.5s`, `6m0s`.
fn go_duration(ms: u32) -> String {
    if ms < 1_000 {
        return if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") };
    }
    let (hours, minutes, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let fraction = format!("{:03}", rest % 1_000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let _ = write!(text, "{}{point}{fraction}s", rest / 1_000);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_go_writes_it() {
        let cases = [
            (0, "0s"),
            (12, "12ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (360_000, "6m0s"),
            (3_661_010, "1h1m1.01s"),
        ];
        for (ms, text) in cases {
            assert_eq!(go_duration(ms), text);
        }
    }

    #[test]
    fn only_what_is_limited_has_headers() {
        let mut headers = HeaderMap::new();
        insert(&mut headers, &Standing { requests: Some(Window { limit: 100, remaining: 7, reset_ms: 55_800 }), tokens: None });
        assert_eq!(headers["x-ratelimit-limit-requests"], "100");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "7");
        assert_eq!(headers["x-ratelimit-reset-requests"], "55.8s");
        assert_eq!(headers.len(), 3);
    }
}
