//! core: any text is a configuration, or is refused with the line of what is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::config::parse;

fuzz_target!(|text: &str| {
    if let Err(error) = parse(text, "fuzzed.yaml") {
        assert!(!error.what.is_empty());
    }
});
