//! core: a set of models, endpoints or lanes that may be used. Not said means all; an empty list means none.

use super::pattern::Pattern;
use crate::domain::{Lane, Operation};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Words in one set. A request may look at all of them, and every replica holds those of a million keys.
const WORDS_MAX: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed<T> {
    #[default]
    All,
    These(Box<[T]>),
}

/// What a set is written with.
pub trait Word: Sized {
    /// What such a word is, for whoever wrote another.
    const EXPECTED: &'static str;

    fn of_word(word: &str) -> Option<Self>;
    fn word(&self) -> String;
}

impl<T> Allowed<T> {
    pub const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }
}

impl<T: PartialEq> Allowed<T> {
    pub fn has(&self, what: &T) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.contains(what),
        }
    }
}

impl Allowed<Pattern> {
    pub fn matches(&self, model: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(patterns) => patterns.iter().any(|pattern| pattern.matches(model)),
        }
    }
}

impl Word for Pattern {
    const EXPECTED: &'static str = "a model's name, its beginning and `*`, or `*`";

    fn of_word(word: &str) -> Option<Self> {
        Self::parse(word)
    }
    fn word(&self) -> String {
        self.to_string()
    }
}

impl Word for Operation {
    const EXPECTED: &'static str = "chat, completions, responses or embeddings";

    fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.as_str() == word)
    }
    fn word(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Word for Lane {
    const EXPECTED: &'static str = "interactive, async or bulk";

    fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == word)
    }
    fn word(&self) -> String {
        self.as_str().to_owned()
    }
}

impl<T: Word> Serialize for Allowed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_none(),
            Self::These(these) => serializer.collect_seq(these.iter().map(Word::word)),
        }
    }
}

impl<'de, T: Word> Deserialize<'de> for Allowed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(words) = Option::<Vec<String>>::deserialize(deserializer)? else { return Ok(Self::All) };
        if words.len() > WORDS_MAX {
            return Err(D::Error::custom(format!("a list of at most {WORDS_MAX} words is expected")));
        }
        // The word is not repeated: it may be of any length.
        let read = |word: &String| T::of_word(word).ok_or_else(|| D::Error::custom(format!("each word must be {}", T::EXPECTED)));
        words.iter().map(read).collect::<Result<_, _>>().map(Self::These)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_and_writes_the_words_of_the_configuration() {
        let lanes: Allowed<Lane> = serde_json::from_str(r#"["interactive","bulk"]"#).unwrap();
        assert!(lanes.has(&Lane::Bulk) && !lanes.has(&Lane::Async));
        assert_eq!(serde_json::to_string(&lanes).unwrap(), r#"["interactive","bulk"]"#);
        assert!(serde_json::from_str::<Allowed<Lane>>(r#"["i"]"#).unwrap_err().to_string().contains("interactive, async or bulk"));
        assert!(serde_json::from_str::<Allowed<Operation>>(r#"["embedding"]"#).is_err());
    }

    #[test]
    fn nothing_said_is_all_and_an_empty_list_is_none() {
        let none: Allowed<Pattern> = serde_json::from_str("[]").unwrap();
        assert!(Allowed::<Pattern>::default().matches("any") && !none.matches("any"));
        assert_eq!(serde_json::from_str::<Allowed<Pattern>>("null").unwrap(), Allowed::All);
        let many = serde_json::to_string(&vec!["m"; WORDS_MAX + 1]).unwrap();
        assert!(serde_json::from_str::<Allowed<Pattern>>(&many).is_err());
    }
}
