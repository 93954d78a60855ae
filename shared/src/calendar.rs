//! core: where UTC days and months begin and end, in Unix milliseconds.

pub const DAY_MS: u64 = 86_400_000;

/// 00:00 of the day of `at`.
pub const fn day_start(at: u64) -> u64 {
    at - at % DAY_MS
}

/// 00:00 of the first day of the month of `at`.
///
/// Years begin in March here, so that a leap day is a year's last (the algorithm of H. Hinnant, "chrono-compatible
/// low-level date algorithms").
pub const fn month_start(at: u64) -> u64 {
    let day = at / DAY_MS;
    let day_of_era = (day + 719_468) % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    (day - day_of_month) * DAY_MS
}

/// The first moment after the day of `at`.
pub const fn day_end(at: u64) -> u64 {
    day_start(at) + DAY_MS
}

/// The first moment after the month of `at`: no month has more than 31 days, and none fewer than 28.
pub const fn month_end(at: u64) -> u64 {
    month_start(month_start(at) + 31 * DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_on_its_first_day() {
        // 00:00 of first days, as `date -u +%s` tells them: of leap years, of none, and of 1970.
        for first in [0, 951_868_800, 1_706_745_600, 1_709_251_200, 1_740_787_200, 1_764_547_200, 1_793_491_200, 4_107_542_400] {
            let first = first * 1_000;
            assert_eq!(month_start(first), first);
            assert_eq!(month_start(first + 27 * DAY_MS + 1), first);
            assert!(first == 0 || month_start(first - 1) < first);
        }
    }

    #[test]
    fn every_day_is_of_the_month_before_or_begins_one() {
        let mut firsts = 0;
        for day in 1..=36_525 {
            let (before, now) = (month_start((day - 1) * DAY_MS), month_start(day * DAY_MS));
            assert!(now == before || now == day * DAY_MS, "{day}");
            firsts += u32::from(now != before);
        }
        assert_eq!(firsts, 1_200, "a century of months");
    }

    #[test]
    fn a_day_begins_at_midnight() {
        assert_eq!((day_start(0), day_start(DAY_MS - 1), day_start(DAY_MS + 5)), (0, 0, DAY_MS));
    }

    /// 00:00 of the first days of months, as `date -u +%s` tells them.
    const MONTHS: [(u64, u64); 8] = [
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
        for (first, next) in MONTHS {
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
