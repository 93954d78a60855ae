//! core: the tag by which the sandbox backend names the prompt it answers, computed here again on purpose:
//! an answer to somebody else's prompt must not be able to hide behind shared code.

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// `sandbox:` and 16 hex digits: the hash.
pub fn of(hash_key: &str, prompt: &str) -> String {
    format!("sandbox:{:016x}", hash(hash_key, prompt))
}

/// FNV-1a over the key, a zero byte, and the prompt.
pub fn hash(hash_key: &str, prompt: &str) -> u64 {
    let bytes = hash_key.bytes().chain([0]).chain(prompt.bytes());
    bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        // The published test vector of FNV-1a-64 for "foobar" is 85944171f73967e8; here the zero byte parts "foo" and "bar".
        assert_ne!(of("foo", "bar"), "sandbox:85944171f73967e8");
        assert_eq!(of("", ""), "sandbox:af63bd4c8601b7df", "one zero byte");
    }

    #[test]
    fn key_and_prompt_are_told_apart() {
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of("k", "one prompt"), of("k", "another prompt"));
    }
}
