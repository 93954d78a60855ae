//! core: what a server says of its rate limit beside each answer (`x-ratelimit-limit-…`, `-remaining-…`, `-reset-…`, for requests and
//! for tokens, as OpenAI and those that follow it send them).

use http::HeaderMap;
use std::time::Duration;

/// Nothing is held back for longer: a server that is asked too early says so with a 429 and a time.
const REST_MAX: Duration = Duration::from_secs(120);

/// How long the next call had better wait: until one more request is allowed, of a limit that is used up and fills evenly until its
/// reset. `None`: something is left, or nothing is said.
pub(super) fn rest(headers: &HeaderMap) -> Option<Duration> {
    let requests = used_up(headers, "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests").map(|reset| {
        let limit = number(headers, "x-ratelimit-limit-requests").unwrap_or(1).max(1);
        reset / u32::try_from(limit).unwrap_or(u32::MAX)
    });
    // Of tokens a call wants many: all that there may be.
    let tokens = used_up(headers, "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens");
    requests.max(tokens).map(|rest| rest.min(REST_MAX))
}

/// The time until its reset, of a limit of which nothing is left.
fn used_up(headers: &HeaderMap, remaining: &str, reset: &str) -> Option<Duration> {
    if number(headers, remaining)? > 0 {
        return None;
    }
    duration(headers.get(reset)?.to_str().ok()?)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `1h2m3.5s`, `17ms`, or a number of seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, more) = rest.split_at(digits);
        let unit = more.find(|c: char| c.is_ascii_digit()).unwrap_or(more.len());
        let (unit, more) = more.split_at(unit);
        let seconds = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = more;
    }
    (!text.trim().is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest_of(pairs: &[(&'static str, &'static str)]) -> Option<u128> {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        rest(&headers).map(|rest| rest.as_millis())
    }

    #[test]
    fn durations_are_read_as_servers_write_them() {
        let read = |text| duration(text).map(|duration| duration.as_micros());
        assert_eq!(read("6m0s"), Some(360_000_000));
        assert_eq!(read("1h2m3.5s"), Some(3_723_500_000));
        assert_eq!(read("17ms"), Some(17_000));
        assert_eq!(read(" 2 "), Some(2_000_000));
        for wrong in ["", "s", "1", "-1", "1x", "1.2.3s", "∞", "1s garbage", "1e400s"] {
            assert_eq!(read(wrong), (wrong == "1").then_some(1_000_000), "{wrong}");
        }
    }

    #[test]
    fn the_next_call_waits_until_one_more_is_allowed() {
        let requests = |remaining| {
            rest_of(&[
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-remaining-requests", remaining),
                ("x-ratelimit-reset-requests", "1m0s"),
            ])
        };
        assert_eq!(requests("0"), Some(1_000));
        assert_eq!(requests("1"), None);
    }

    #[test]
    fn a_limit_on_tokens_is_waited_for_whole_and_not_for_ever() {
        let tokens = |reset| rest_of(&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", reset)]);
        assert_eq!(tokens("6s"), Some(6_000));
        assert_eq!(tokens("24h"), Some(120_000));
        assert_eq!(tokens("soon"), None);
        assert_eq!(rest_of(&[]), None);
    }
}
