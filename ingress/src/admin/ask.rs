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
use std::time::Duration;

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
    let bytes = body::read(&parts.headers, body, &office.limits, &office.gate.bodies, deadline).await?;
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

    #[test]
    fn a_revision_is_an_etag() {
        let expected = |value: &str| Expected::read(&HeaderMap::from_iter([(header::IF_MATCH, value.parse().unwrap())]));
        assert_eq!(expected("\"12\"").unwrap(), Expected::Revision(12));
        assert_eq!(expected("*").unwrap(), Expected::Any);
        assert_eq!(Expected::read(&HeaderMap::new()).unwrap(), Expected::Unsaid);
        assert!(expected("12").is_err() && expected("\"x\"").is_err());
    }
}
