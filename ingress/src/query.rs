//! core: the query of a request, taken apart.

use http::Uri;
use http::request::Parts;
use shared::error::{Code, Failure};
use std::str::FromStr;

/// Entries of one page, unless it is asked for another number.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// A query, taken apart.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// `invalid_value`, for what is not among `known`: a mistyped filter would find everything.
    pub(crate) fn read(request: &Parts, known: &[&str]) -> Result<Self, Failure> {
        Self::of(&request.uri, known)
    }

    /// # Errors
    /// As [`Query::read`].
    pub(crate) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Failure> {
        let text = uri.query().unwrap_or_default();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (unescape(name), unescape(value)));
        let query = Self(pairs.collect());
        if query.0.iter().any(|(name, _)| !known.contains(&name.as_str())) {
            return Err(Failure::new(Code::InvalidValue, format!("The query may hold {} and nothing else", known.join(", "))));
        }
        Ok(query)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// `invalid_value`.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, Failure> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Failure::new(Code::InvalidValue, format!("`{name}` must be true or false")).param(name)),
        }
    }

    /// # Errors
    /// `invalid_value`.
    pub(crate) fn number<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, Failure> {
        let wrong = |_| Failure::new(Code::InvalidValue, format!("`{name}` must be a number")).param(name);
        self.text(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// How many entries the answer may have.
    ///
    /// # Errors
    /// `invalid_value`.
    pub(crate) fn limit(&self) -> Result<usize, Failure> {
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
}
