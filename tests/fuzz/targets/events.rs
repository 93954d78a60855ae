//! core: a stream of events has as many of them, however it comes in pieces. The first byte says how it is cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use workers::backend::measured::parse_events;

fuzz_target!(|bytes: &[u8]| {
    let Some((&size, stream)) = bytes.split_first() else { return };
    let pieces: Vec<Bytes> = stream.chunks(usize::from(size).max(1)).map(Bytes::copy_from_slice).collect();
    assert_eq!(parse_events(&pieces), parse_events(&[Bytes::copy_from_slice(stream)]));
});
