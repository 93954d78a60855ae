//! core: spans of time as people write them: `90s`, `15m`, `12h`, `30d`.

use std::time::Duration;

/// # Errors
/// What would be one.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "use a number and s, m, h or d, such as 30d".to_owned();
    let (unit_at, unit) = text.char_indices().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..unit_at].parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        let spans = ["90s", "15m", "12h", "30d"].map(|text| parse(text).unwrap().as_secs());
        assert_eq!(spans, [90, 900, 43_200, 2_592_000]);
        for bad in ["", "d", "5", "5w", "-5s", "5µ"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
