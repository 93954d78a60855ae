//! core: from when until when a certificate holds: the one thing that rustls keeps to itself.
//!
//! Reads no more of the DER than the way there (RFC 5280, 4.1): whether the rest is sound, rustls says. Written by hand
//! because the parsers that exist bring a dozen crates for these forty lines.

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

const DAY_SECONDS: i64 = 86_400;

/// Both ends belong to it, in seconds since 1970; what lies before is 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Validity {
    /// `None` when the bytes are no certificate.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(certificate);
        let mut signed = outer.sequence()?.sequence()?;
        if signed.0.first() == Some(&VERSION) {
            signed.next()?;
        }
        for _serial_algorithm_issuer in 0..3 {
            signed.next()?;
        }
        let mut validity = signed.sequence()?;
        Some(Self { not_before: validity.time()?, not_after: validity.time()? })
    }
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, length], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match length {
            0..=0x7F => (usize::from(length), rest),
            0x81..=0x84 => long(rest.split_at_checked(usize::from(length - 0x80))?),
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn sequence(&mut self) -> Option<Self> {
        self.next().filter(|(tag, _)| *tag == SEQUENCE).map(|(_, content)| Self(content))
    }

    fn time(&mut self) -> Option<u64> {
        let (tag, content) = self.next()?;
        let digits = std::str::from_utf8(content).ok()?.strip_suffix('Z').filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
        let (year, rest) = match (tag, digits.len()) {
            (UTC_TIME, 12) => (century(digits[..2].parse().ok()?), &digits[2..]),
            (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
            _ => return None,
        };
        let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
        let days = days_since_1970(year, part(0)?, part(2)?);
        let seconds = days * DAY_SECONDS + part(4)? * 3_600 + part(6)? * 60 + part(8)?;
        Some(u64::try_from(seconds).unwrap_or(0))
    }
}

/// A length in up to four bytes, and what follows it.
fn long<'a>((bytes, rest): (&[u8], &'a [u8])) -> (usize, &'a [u8]) {
    (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
}

/// Two digits mean 1950 to 2049 (RFC 5280, 4.1.2.5.1).
const fn century(year: i64) -> i64 {
    if year < 50 { 2_000 + year } else { 1_900 + year }
}

/// Days of the Gregorian calendar, counted from March so that the leap day is a year's last (Hinnant, "chrono-compatible
/// low-level date algorithms").
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from.0, from.1, from.2), date_time_ymd(until.0, until.1, until.2));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn dates_of_both_forms_are_read() {
        let read = Validity::of(&certificate((1999, 12, 31), (2024, 2, 29)));
        assert_eq!(read, Some(Validity { not_before: 946_598_400, not_after: 1_709_164_800 }));
        let late = Validity::of(&certificate((2049, 12, 31), (2100, 3, 1))).unwrap();
        assert_eq!((late.not_before, late.not_after), (2_524_521_600, 4_107_542_400));
        assert_eq!(Validity::of(&certificate((1951, 1, 1), (2000, 1, 1))).unwrap().not_before, 0);
    }

    #[test]
    fn a_certificate_that_is_cut_off_is_none() {
        let whole = certificate((2020, 1, 1), (2030, 1, 1));
        assert!((0..whole.len()).all(|length| Validity::of(&whole[..length]).is_none()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0_usize..120, byte: u8) {
            let mut bytes = certificate((2020, 1, 1), (2030, 1, 1));
            bytes[at] = byte;
            Validity::of(&bytes);
        }
    }
}
