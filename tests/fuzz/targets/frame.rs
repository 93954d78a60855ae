//! core: any bytes are a frame of messages that can be written again, or are refused.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use shared::wire::{Cancel, Envelope, Heartbeat, Part, ToIngress, ToScheduler, ToWorker, decode};

fuzz_target!(|bytes: &[u8]| {
    for part in decode(&Bytes::copy_from_slice(bytes)).unwrap_or_default() {
        if let Ok(envelope) = part.decode::<Envelope>() {
            assert_eq!(Part::encode(&envelope, Bytes::new()).decode::<Envelope>(), Ok(envelope));
        }
        let _ = (part.decode::<ToWorker>(), part.decode::<ToScheduler>(), part.decode::<ToIngress>());
        let _ = (part.decode::<Heartbeat>(), part.decode::<Cancel>());
    }
});
