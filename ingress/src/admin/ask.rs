//! edge: what a request of the administration asks for: its query, the revision it is about, its body.

use super::Office;
use crate::body;
use axum::body::Body;
use axum::extract::Request;
use http::request::Parts;
use http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::clock;
use shared::error::{Code, Failure};
use std::str::FromStr;
use std::time::Duration;

/// Entries of one page, unless it is asked for another number.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// A query, taken apart.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// `invalid_value`, for what is not among `known`: a mistyped filter would find everything.
    pub(super) fn read(request: &Parts, known: &[&str]) -> Result<Self, Failure> {
        let text = request.uri.query().unwrap_or_default();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (unescape(name), unescape(value)));
        let query = Self(pairs.collect());
        if query.0.iter().any(|(name, _)| !known.contains(&name.as_str())) {
            return Err(Failure::new(Code::InvalidValue, format!("The query may hold {} and nothing else", known.join(", "))));
        }
        Ok(query)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// `invalid_value`.
    pub(super) fn number<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, Failure> {
        let wrong = |_| Failure::new(Code::InvalidValue, format!("`{name}` must be a number")).param(name);
        self.text(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// How many entries the answer may have.
    ///
    /// # Errors
    /// `invalid_value`.
    pub(super) fn limit(&self) -> Result<usize, Failure> {
        Ok(self.number("limit")?.unwrap_or(PAGE).clamp(1, PAGE_MAX))
    }
}

/// Undoes percent-encoding. What is none stays as it is.
fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What must be there for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// `If-Match: "REVISION"`.
    Revision(u64),
    /// `If-Match: *`.
    Any,
    /// No `If-Match`.
    Unsaid,
}

impl Expected {
    /// # Errors
    /// `invalid_header`.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Failure> {
        let Some(value) = headers.get(header::IF_MATCH) else { return Ok(Self::Unsaid) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        let revision = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|number| number.parse().ok());
        let wrong = || Failure::new(Code::InvalidHeader, "If-Match: send the `ETag` of the object, or *").param("if-match");
        revision.map(Self::Revision).ok_or_else(wrong)
    }
}

/// The body as a JSON object; one that is not there is empty.
///
/// # Errors
/// Those of [`body::read`], `invalid_json`.
pub(super) async fn object(office: &Office, request: Request) -> Result<(Parts, serde_json::Map<String, Value>), Failure> {
    let (parts, body) = request.into_parts();
    let map = read(office, &parts, body).await?;
    Ok((parts, map))
}

async fn read(office: &Office, parts: &Parts, body: Body) -> Result<serde_json::Map<String, Value>, Failure> {
    let deadline = clock::now() + Duration::from_millis(office.limits.body_timeout_ms);
    let bytes = body::read(&parts.headers, body, &office.limits, deadline).await?;
    if bytes.is_empty() {
        return Ok(serde_json::Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|error| Failure::new(Code::InvalidJson, format!("The body must be one JSON object: {error}")))
}

/// Reads an object's fields.
///
/// # Errors
/// `invalid_value`, with the field's name.
pub(super) fn fields<T: DeserializeOwned>(map: serde_json::Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(map)).map_err(|error| invalid(error.to_string()))
}

pub(super) fn invalid(why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::InvalidValue, format!("This cannot be: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(query: &str) -> Parts {
        http::Request::builder().uri(format!("http://h/p?{query}")).body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_query_is_unescaped_and_a_mistyped_one_refused() {
        let query = Query::read(&parts("tenant=a%2Fb%&limit=5000&"), &["tenant", "limit"]).unwrap();
        assert_eq!((query.text("tenant"), query.limit().unwrap()), (Some("a/b%"), PAGE_MAX));
        assert!(Query::read(&parts("tennant=a"), &["tenant"]).is_err());
        assert!(Query::read(&parts("limit=x"), &["limit"]).unwrap().limit().is_err());
    }

    #[test]
    fn a_revision_is_an_etag() {
        let expected = |value: &str| Expected::read(&HeaderMap::from_iter([(header::IF_MATCH, value.parse().unwrap())]));
        assert_eq!(expected("\"12\"").unwrap(), Expected::Revision(12));
        assert_eq!(expected("*").unwrap(), Expected::Any);
        assert_eq!(Expected::read(&HeaderMap::new()).unwrap(), Expected::Unsaid);
        assert!(expected("12").is_err() && expected("\"x\"").is_err());
    }
}
