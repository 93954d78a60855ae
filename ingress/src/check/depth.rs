//! core: how deeply a JSON text nests, by one scan that looks at brackets outside strings. It runs before any parser, so
//! that no parser meets a text made to exhaust it.

use memchr::memchr2;

/// Whether no bracket of `json` is nested deeper than `max`. Says nothing about the rest of the syntax.
pub(super) fn within(json: &[u8], max: usize) -> bool {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = after_string(json, at),
            _ => {}
        }
    }
    true
}

/// Where the string that began before `at` has ended; the end of the text when it never does.
fn after_string(json: &[u8], mut at: usize) -> usize {
    while let Some(found) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_nest_and_siblings_do_not() {
        assert!(within(b"[[1],[2],{\"a\":[3]}]", 3));
        assert!(!within(b"[[1],[2],{\"a\":[3]}]", 2));
    }

    #[test]
    fn brackets_inside_strings_do_not_count() {
        assert!(within(br#"{"a":"[[[[","b":"\"[[[["}"#, 1));
        assert!(within(br#"["ends in a backslash \\",[1]]"#, 2));
        assert!(!within(br#"["ends in a backslash \\",[1]]"#, 1));
    }

    #[test]
    fn cut_and_unbalanced_texts_are_left_to_the_parser() {
        for text in [&b"\"open [[["[..], b"]]]]", b"", b"\"\\"] {
            assert!(within(text, 0), "{}", String::from_utf8_lossy(text));
        }
    }
}
