//! core: where the UTC days and months end, in Unix milliseconds.

const DAY_MS: u64 = 86_400_000;

/// The first moment after the day of `at`.
pub(super) const fn day_end(at: u64) -> u64 {
    (at / DAY_MS + 1) * DAY_MS
}

/// The first moment after the month of `at`.
pub(super) const fn month_end(at: u64) -> u64 {
    let day = at / DAY_MS;
    let (month_index, day_of_month) = month_of(day);
    (day - day_of_month + days_in(month_index)) * DAY_MS
}

/// The month that a day since 1970 is in, counted from March as 0, with its year; and the day within it, from 0.
///
/// Years begin in March here, so that a leap day is a year's last (the algorithm of H. Hinnant, "chrono-compatible
/// low-level date algorithms").
const fn month_of(day: u64) -> ((u64, u64), u64) {
    let day = day + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    ((era * 400 + year_of_era, month), day_of_year - (153 * month + 2) / 5)
}

const fn days_in((year, month): (u64, u64)) -> u64 {
    let next = year + 1;
    match month {
        // February, of the calendar year after the one that began in March.
        11 if next % 4 == 0 && (next % 100 != 0 || next % 400 == 0) => 29,
        11 => 28,
        // April, June, September, November.
        1 | 3 | 6 | 8 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 00:00 of the first days of months, as `date -u +%s` tells them.
    const FIRSTS: [(u64, u64); 8] = [
        (0, 2_678_400),
        (1_706_745_600, 1_709_251_200),           // 2024-02, a leap year's
        (1_738_368_000, 1_740_787_200),           // 2025-02
        (1_764_547_200, 1_767_225_600),           // 2025-12
        (1_793_491_200, 1_796_083_200),           // 2026-11
        (4_105_123_200, 4_107_542_400),           // 2100-02, no leap year's
        (951_782_400 - 86_400 * 28, 951_868_800), // 2000-02
        (1_711_929_600, 1_714_521_600),           // 2024-04
    ];

    #[test]
    fn a_month_ends_where_the_next_begins() {
        for (first, next) in FIRSTS {
            assert_eq!(month_end(first * 1_000), next * 1_000, "{first}");
            assert_eq!(month_end(next * 1_000 - 1), next * 1_000, "{first}");
            assert!(month_end(next * 1_000) > next * 1_000);
        }
    }

    #[test]
    fn a_day_ends_at_midnight() {
        assert_eq!(day_end(0), DAY_MS);
        assert_eq!(day_end(DAY_MS - 1), DAY_MS);
        assert_eq!(day_end(DAY_MS), 2 * DAY_MS);
    }

    #[test]
    fn months_follow_one_another_for_two_centuries() {
        let mut at = 0;
        for _ in 0..2_400 {
            let next = month_end(at);
            let days = (next - at) / DAY_MS;
            assert!((28..=31).contains(&days), "{at}");
            at = next;
        }
        assert_eq!(at / 1_000, 6_311_433_600, "2170-01-01");
    }
}
