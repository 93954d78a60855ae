//! core: any line of a batch is a request, or its caller's to mend.
#![no_main]

use bytes::Bytes;
use ingress::simulated::request_line;
use libfuzzer_sys::fuzz_target;
use shared::domain::Operation;

fuzz_target!(|line: &[u8]| {
    if let Err(failure) = request_line(Operation::Embeddings, &Bytes::copy_from_slice(line)) {
        assert!((400..500).contains(&failure.code.status()), "{failure:?}");
    }
});
