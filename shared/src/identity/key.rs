//! core: the form of an issued key, `tm_<id>_<secret><checksum>`: found by its id, refused without a look-up when it was
//! mistyped, and recognisable to secret scanners, which can check it by the checksum.

use super::objects::Digest;
use super::pepper::Peppers;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX: &str = "tm_";
const ID_LEN: usize = 10;
/// Digits of 256 bits to the base of 62.
const SECRET_LEN: usize = 43;
/// Digits of 32 bits to the base of 62.
const CHECKSUM_LEN: usize = 6;
const LEN: usize = PREFIX.len() + ID_LEN + 1 + SECRET_LEN + CHECKSUM_LEN;

/// Random bytes that [`issue`] takes.
pub const ENTROPY_LEN: usize = 8 + 32;

/// The part of an issued key that names it. No secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    pub fn parse(text: &str) -> Option<Self> {
        let id: [u8; ID_LEN] = text.as_bytes().try_into().ok()?;
        id.iter().all(u8::is_ascii_alphanumeric).then_some(Self(id))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id is made of ASCII only")
    }
}

/// A key as it is shown once, to whom it is issued.
pub struct Issued {
    pub id: KeyId,
    text: String,
}

impl Issued {
    /// The key itself: for its owner's eyes, never for a log.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    pub fn digest(&self, peppers: &Peppers) -> Digest {
        peppers.digest(self.text.as_bytes())
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tm_{}_…", self.id)
    }
}

/// Makes a new key of random bytes.
pub fn issue(entropy: &[u8; ENTROPY_LEN]) -> Issued {
    let (id, secret) = entropy.split_at(8);
    let mut digits = [0; ID_LEN];
    to_base62(&mut id.to_vec(), &mut digits);
    with_secret(KeyId(digits), secret)
}

/// A new secret for a key that is rotated: its id stays. Of `entropy` the last 32 bytes are used.
pub fn reissue(id: KeyId, entropy: &[u8; ENTROPY_LEN]) -> Issued {
    with_secret(id, &entropy[8..])
}

fn with_secret(id: KeyId, secret: &[u8]) -> Issued {
    let mut digits = [0; SECRET_LEN];
    to_base62(&mut secret.to_vec(), &mut digits);
    let mut text = format!("{PREFIX}{id}_");
    text.extend(digits.map(char::from));
    text.extend(checksum(text.as_bytes()).map(char::from));
    Issued { id, text }
}

/// Whether a credential claims to be an issued key.
pub fn is_issued(credential: &[u8]) -> bool {
    credential.starts_with(PREFIX.as_bytes())
}

/// The id of a key whose form and checksum are right.
pub fn id_of(key: &[u8]) -> Option<KeyId> {
    let (body, sum) = key.split_last_chunk::<CHECKSUM_LEN>().filter(|_| key.len() == LEN)?;
    let id = body.strip_prefix(PREFIX.as_bytes())?.first_chunk::<ID_LEN>()?;
    let is_sound = id.iter().all(u8::is_ascii_alphanumeric) && checksum(body) == *sum;
    is_sound.then_some(KeyId(*id))
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut digits = [0; CHECKSUM_LEN];
    to_base62(&mut crc32(body).to_be_bytes().to_vec(), &mut digits);
    digits
}

/// Writes the last digits of a big-endian number to the base of 62; the number is used up.
fn to_base62(number: &mut [u8], digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        let mut rest = 0;
        for byte in number.iter_mut() {
            let value = rest << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("the rest of a division by 62, and a byte, divided by 62");
            rest = value % 62;
        }
        *digit = ALPHABET[rest as usize];
    }
}

/// CRC-32 as in IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc32_table();
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8))
}

const fn crc32_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut entry: u32 = 0;
    while entry < 256 {
        let (mut crc, mut bit) = (entry, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[entry as usize] = crc;
        entry += 1;
    }
    table
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("a key's id is {ID_LEN} letters and digits")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entropy(seed: u8) -> [u8; ENTROPY_LEN] {
        std::array::from_fn(|n| (n as u8).wrapping_mul(7).wrapping_add(seed))
    }

    #[test]
    fn the_checksum_is_the_crc_that_scanners_know() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the check value of CRC-32/ISO-HDLC");
    }

    #[test]
    fn a_key_tells_its_id_and_keeps_it_when_rotated() {
        let first = issue(&entropy(1));
        let second = reissue(first.id, &entropy(2));
        for key in [&first, &second] {
            assert_eq!(key.expose().len(), 63);
            assert_eq!(id_of(key.expose().as_bytes()), Some(first.id), "{}", key.expose());
        }
        assert_ne!(first.expose(), second.expose());
        assert!(!format!("{first:?}").contains(&first.expose()[14..]));
    }

    #[test]
    fn every_single_typing_mistake_is_seen() {
        let key = issue(&entropy(3)).expose().to_owned().into_bytes();
        for at in 0..key.len() {
            let mut wrong = key.clone();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(id_of(&wrong), None, "position {at}");
        }
        assert_eq!(id_of(&key[..key.len() - 1]), None);
        assert_eq!(id_of(&[&key[..], b"0"].concat()), None);
    }

    #[test]
    fn all_256_bits_are_in_the_secret() {
        let key = issue(&[255; ENTROPY_LEN]).expose().to_owned();
        assert_ne!(key[14..57].chars().next(), Some('0'), "43 digits hold 2^256 - 1 without a loss");
        assert!(62f64.powi(43) > 2f64.powi(256));
    }
}
