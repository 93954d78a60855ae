//! core: where UTC days and months begin, in Unix milliseconds.

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
}
