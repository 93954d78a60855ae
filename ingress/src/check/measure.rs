//! core: how many tokens the body of a generation is taken to hold, before any tokenizer has seen it.

use memchr::{memchr, memmem};
use shared::domain::estimate_tokens;

/// The most that a picture, a recording or a document counts as. Its bytes say little: OpenAI counts a picture of any size as 85
/// to some 1,500 tokens (platform.openai.com/docs/guides/images-vision, "Calculating costs").
const MEDIA_TOKENS_MAX: u32 = 1_500;

/// What stands before the data, such as `image/png;base64,`, is no longer than this.
const MEDIA_TYPE_BYTES_MAX: usize = 128;

const BASE64: &[u8] = b";base64,";

/// In either alphabet; JSON may write a slash with a backslash before it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "what an iterator of a slice gives")]
const fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'\\')
}

/// The estimated input tokens of a JSON body: its bytes', where each base64 `data:` URL counts as [`MEDIA_TOKENS_MAX`] at most.
pub(crate) fn tokens_of(body: &[u8]) -> u32 {
    let (mut text, mut media) = (body.len(), 0_u32);
    for at in memmem::find_iter(body, b"\"data:") {
        let url = &body[at + 1..];
        let kind = &url[..url.len().min(MEDIA_TYPE_BYTES_MAX)];
        let Some(kind_bytes) = memmem::find(kind, BASE64).map(|at| at + BASE64.len()) else { continue };
        let bytes = memchr(b'"', url).unwrap_or(url.len()).max(kind_bytes);
        // Prose behind such a beginning is prose: words have spaces between them.
        if estimate_tokens(bytes) > MEDIA_TOKENS_MAX && url[kind_bytes..bytes].iter().all(is_base64) {
            text -= bytes;
            media = media.saturating_add(MEDIA_TOKENS_MAX);
        }
    }
    estimate_tokens(text).saturating_add(media)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(url: &str) -> Vec<u8> {
        format!(r#"{{"messages":[{{"content":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}]}}"#).into_bytes()
    }

    #[test]
    fn text_counts_by_its_bytes() {
        let words = "words ".repeat(2_000);
        for url in ["https://host/picture.png", &format!("data:{words}"), &format!("data:;base64,{words}"), &"x".repeat(10_000)] {
            let body = message(url);
            assert_eq!(tokens_of(&body), estimate_tokens(body.len()));
        }
    }

    #[test]
    fn a_picture_counts_as_one_however_large() {
        let picture = |bytes: usize| message(&format!("data:image/png;base64,{}", "A".repeat(bytes)));
        assert_eq!(tokens_of(&picture(700)), estimate_tokens(picture(700).len()), "a small one by its bytes");
        let around = estimate_tokens(message("").len());
        assert_eq!(tokens_of(&picture(5_000_000)), around + MEDIA_TOKENS_MAX);
        let two = [picture(5_000_000), picture(1_000_000)].concat();
        assert_eq!(tokens_of(&two), estimate_tokens(2 * message("").len()) + 2 * MEDIA_TOKENS_MAX);
    }

    #[test]
    fn a_body_that_ends_in_a_picture_is_measured() {
        assert_eq!(tokens_of(format!("\"data:a;base64,{}", "A".repeat(10_000)).as_bytes()), MEDIA_TOKENS_MAX + 1);
    }
}
