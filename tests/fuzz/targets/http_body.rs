//! core: any body is sound, or its caller's to mend.
#![no_main]

use bytes::Bytes;
use ingress::measured::{check_chat, check_embedding};
use libfuzzer_sys::fuzz_target;
use shared::config::Limits;

fuzz_target!(|bytes: &[u8]| {
    let (body, limits) = (Bytes::copy_from_slice(bytes), Limits::default());
    for failure in [check_chat(&body, &limits).err(), check_embedding(&body, &limits).err()].into_iter().flatten() {
        assert!((400..500).contains(&failure.code.status()), "{failure:?}");
    }
});
