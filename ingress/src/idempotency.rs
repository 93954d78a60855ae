//! core: `Idempotency-Key`: what is asked for under one name is one thing, however often it is asked for.

use http::{HeaderMap, HeaderName};
use shared::domain::Token;
use shared::entropy;
use shared::error::{Code, Failure};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

const NAME_BYTES_MAX: usize = 255;

/// The name that a request has, if it has one.
///
/// # Errors
/// `invalid_header`.
pub(crate) fn name(headers: &HeaderMap) -> Result<Option<Box<str>>, Failure> {
    let mut names = headers.get_all(HEADER).iter();
    let name = names.next().map(|value| visible(value.as_bytes()).ok_or_else(bad_name)).transpose()?;
    if names.next().is_some() { Err(bad_name()) } else { Ok(name) }
}

fn visible(value: &[u8]) -> Option<Box<str>> {
    let fits = (1..=NAME_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(value).ok().filter(|_| fits).map(Into::into)
}

fn bad_name() -> Failure {
    let message = format!("Idempotency-Key must be sent once, with 1 to {NAME_BYTES_MAX} visible ASCII characters");
    Failure::new(Code::InvalidHeader, message).param(HEADER.as_str())
}

/// The id of what a tenant asks for under a name: the same each time. Without a name it is nobody else's.
pub(crate) fn id(prefix: &str, tenant: &str, name: Option<&str>) -> Token {
    let hex = match name {
        None => entropy::message_id(),
        Some(name) => blake3::hash(format!("{tenant}\0{name}").as_bytes()).to_hex()[..32].to_owned(),
    };
    Token::parse(&format!("{prefix}{hex}")).expect("hexadecimal digits are a token")
}

/// One name, two requests.
pub(crate) fn mismatch() -> Failure {
    Failure::new(Code::IdempotencyMismatch, "This Idempotency-Key was used for another request: use a new one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(HEADER, name.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_name_is_sent_once_and_can_be_seen() {
        assert_eq!(name(&headers(&[])).unwrap(), None);
        assert_eq!(name(&headers(&["a-1"])).unwrap().as_deref(), Some("a-1"));
        for bad in [&[""][..], &["a b"], &["a", "a"]] {
            assert_eq!(name(&headers(bad)).unwrap_err().code, Code::InvalidHeader, "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_one_thing_of_one_tenant() {
        let of = |tenant, name| id("job_", tenant, Some(name));
        assert_eq!(of("a", "x"), of("a", "x"));
        assert_ne!(of("a", "x"), of("b", "x"));
        assert_ne!(id("job_", "a", None), id("job_", "a", None));
    }
}
