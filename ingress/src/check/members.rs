//! core: a JSON object taken apart once, into its members as raw spans of the body. Nothing is copied and no value is
//! built: the body goes on as it came.

use super::{depth, invalid, missing};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use shared::error::{Code, Failure};
use std::borrow::Cow;
use std::fmt;

/// Fields of one body. OpenAI's largest request has some thirty; the bound keeps the check for duplicates cheap.
const MEMBERS_MAX: usize = 256;

/// The members of one object, sorted by name; no name is there twice.
pub(super) struct Members<'a> {
    text: &'a str,
    sorted: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Members<'a> {
    /// Parses a body.
    ///
    /// # Errors
    /// `json_too_deep`, or `invalid_json` with the position. A repeated name is refused, because two readers might
    /// each believe another of its values.
    pub(super) fn parse(body: &'a [u8], depth_max: usize) -> Result<Self, Failure> {
        if !depth::within(body, depth_max) {
            return Err(Failure::new(Code::JsonTooDeep, format!("The body nests deeper than {depth_max} levels: flatten it")));
        }
        let text = std::str::from_utf8(body).map_err(|e| {
            Failure::new(Code::InvalidJson, format!("The body is not UTF-8 from byte {} on: send JSON in UTF-8", e.valid_up_to()))
        })?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(Failure::new(Code::InvalidJson, "The body must be a JSON object, such as {\"model\": …}"));
        }
        let Object(mut sorted) = serde_json::from_str(text).map_err(|e| syntax(&e))?;
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        match sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(twice(&pair[0].0)),
            None => Ok(Self { text, sorted }),
        }
    }

    /// A member's value; `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let index = self.sorted.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        Some(self.sorted[index].1).filter(|value| value.get() != "null")
    }

    pub(super) fn required(&self, name: &str) -> Result<&'a RawValue, Failure> {
        self.get(name).ok_or_else(|| missing(name))
    }

    /// All members in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.sorted.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// Where a member's value begins and ends in the body, in bytes.
    pub(super) fn span(&self, value: &RawValue) -> (u32, u32) {
        let start = value.get().as_ptr().addr() - self.text.as_ptr().addr();
        let end = start + value.get().len();
        (offset(start), offset(end))
    }

    /// The object without one of its members, and where the value of another, which is there, stands in it.
    pub(super) fn without(&self, left_out: &str, sought: &str) -> (Vec<u8>, (u32, u32)) {
        let (mut body, mut at) = (Vec::with_capacity(self.text.len() + 2), (0, 0));
        for (name, value) in self.iter().filter(|(name, _)| *name != left_out) {
            body.push(if body.is_empty() { b'{' } else { b',' });
            serde_json::to_writer(&mut body, name).expect("memory takes every write");
            body.push(b':');
            let start = body.len();
            body.extend_from_slice(value.get().as_bytes());
            if name == sought {
                at = (offset(start), offset(body.len()));
            }
        }
        body.push(b'}');
        (body, at)
    }

    /// The required name of the model.
    pub(super) fn model(&self) -> Result<(String, &'a RawValue), Failure> {
        let value = self.required("model")?;
        let name = serde_json::from_str(value.get()).map_err(|_| invalid("model", "a string: the name of a model of GET /v1/models"))?;
        Ok((name, value))
    }

    /// An optional boolean; absent is false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.get(name).map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(name, "true or false")),
        }
    }

    /// An optional whole number from 1 to `max`.
    pub(super) fn count(&self, name: &str, max: u32) -> Result<Option<u32>, Failure> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.get().parse::<u32>().ok().filter(|n| (1..=max).contains(n));
        number.map(Some).ok_or_else(|| invalid(name, &format!("a whole number from 1 to {max}")))
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a body is at most 1 GiB")
}

fn syntax(error: &serde_json::Error) -> Failure {
    let (line, column) = (error.line(), error.column());
    let message = match error.classify() {
        serde_json::error::Category::Data => format!("The body has more than {MEMBERS_MAX} fields: send fewer"),
        serde_json::error::Category::Eof => format!("The JSON of the body ends too early, at line {line} column {column}"),
        _ => format!("The body is not valid JSON: look at line {line} column {column}"),
    };
    Failure::new(Code::InvalidJson, message)
}

fn twice(name: &str) -> Failure {
    let shown: String = name.chars().take(64).collect();
    Failure::new(Code::InvalidJson, format!("The body has the field `{shown}` twice: send it once")).param(shown)
}

/// An object's members in the order of the text.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut members = Vec::with_capacity(16);
        while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            if members.len() == MEMBERS_MAX {
                return Err(A::Error::custom("too many members"));
            }
            members.push((name, value));
        }
        Ok(Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &[u8]) -> Failure {
        Members::parse(body, 8).err().unwrap()
    }

    #[test]
    fn a_value_is_found_at_its_place_in_the_body() {
        let body = "{ \"é\" : [1, {}], \"model\" :  \"a\\u0062\" , \"x\": null }".as_bytes();
        let members = Members::parse(body, 8).unwrap();
        let (name, value) = members.model().unwrap();
        let (start, end) = members.span(value);
        assert_eq!(name, "ab");
        assert_eq!(&body[start as usize..end as usize], b"\"a\\u0062\"");
        assert!(members.get("x").is_none(), "null is absent");
        assert_eq!(members.get("é").unwrap().get(), "[1, {}]");
    }

    #[test]
    fn what_is_not_one_json_object_is_refused_with_its_place() {
        let cases: [(&[u8], Code, &str); 10] = [
            (b"", Code::InvalidJson, "object"),
            (b"[]", Code::InvalidJson, "object"),
            (b"\"model\"", Code::InvalidJson, "object"),
            (b"{\"a\":1", Code::InvalidJson, "column 6"),
            (b"{\"a\":1}x", Code::InvalidJson, "column 8"),
            (b"{\"a\":\n tru}", Code::InvalidJson, "line 2"),
            (b"{\"a\":1,}", Code::InvalidJson, "column 8"),
            (b"{\"a\":\"\xff\"}", Code::InvalidJson, "byte 6"),
            (b"{\"a\":1,\"\\u0061\":2}", Code::InvalidJson, "`a` twice"),
            (b"{\"a\":[[[[[[[[1]]]]]]]]}", Code::JsonTooDeep, "8 levels"),
        ];
        for (body, code, says) in cases {
            let failure = refused(body);
            assert_eq!(failure.code, code, "{}", String::from_utf8_lossy(body));
            assert!(failure.message.contains(says), "{} should say {says}", failure.message);
        }
    }

    #[test]
    fn a_body_of_countless_fields_is_refused() {
        let fields: Vec<String> = (0..=MEMBERS_MAX).map(|n| format!("\"f{n}\":1")).collect();
        assert!(refused(format!("{{{}}}", fields.join(",")).as_bytes()).message.contains("256"));
    }
}
