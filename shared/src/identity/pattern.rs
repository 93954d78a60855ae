//! core: which models a role or a key means: `*`, `gpt-*`, or a name.

use std::fmt;

/// A model's name, or the beginning of several. The empty beginning, written `*`, is that of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

/// As long as a model's name may be.
const LEN_MAX: usize = 128;

impl Pattern {
    /// `None` for what is no name and has a `*` anywhere but at its end.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        let is_sound = text.len() <= LEN_MAX && !text.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'*');
        is_sound.then(|| if is_prefix { Self::Prefix(name.into()) } else { Self::Exact(name.into()) })
    }

    pub fn matches(&self, model: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *model,
            Self::Prefix(start) => model.starts_with(&**start),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(start) => write!(f, "{start}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_the_beginning_of_one() {
        let cases = [("*", "anything", true), ("gpt-*", "gpt-4o", true), ("gpt-*", "xgpt-4o", false), ("gpt-4o", "gpt-4o", true)];
        for (pattern, model, matches) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(model), matches, "{pattern} {model}");
        }
        assert!(!Pattern::parse("gpt-4o").unwrap().matches("gpt-4o-mini"), "a name is not a beginning");
        for bad in ["", "a*b", "**", "a b", "ä", &"x".repeat(129)] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }
}
