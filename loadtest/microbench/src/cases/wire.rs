//! core: envelopes into a frame and out of it: one alone, and as many as a busy sender puts together.

use super::{Case, samples};
use bytes::Bytes;
use shared::wire::{COALESCE_MAX, Envelope, FrameWriter, Part, decode};

/// What one frame is made of.
type Letters = Vec<(Envelope, Bytes)>;

pub(super) fn cases() -> Vec<Case> {
    [("chat-1-kib", chats as fn(usize) -> Letters, 1), ("embedding", embeddings, 1), ("64-embeddings", embeddings, COALESCE_MAX)]
        .into_iter()
        .flat_map(|(name, letters, count)| {
            let encode = Case::new(format!("wire/encode/{name}"), move |meter| {
                meter.run(&mut letters(count), |_| (), |letters, ()| write(letters));
            });
            let decode = Case::new(format!("wire/decode/{name}"), move |meter| {
                meter.run(&mut write(&letters(count)), |_| (), |frame, ()| read(frame));
            });
            [encode, decode]
        })
        .collect()
}

fn chats(count: usize) -> Letters {
    let body = samples::chat_body();
    (0..count as u64).map(|n| (samples::chat_envelope(n, &body), body.clone())).collect()
}

fn embeddings(count: usize) -> Letters {
    let body = Bytes::from_static(b"\"Tide 1 fills the pond through the gate, and the wheel turns.\"");
    (0..count as u64).map(|n| (samples::embedding_envelope(n, &body), body.clone())).collect()
}

fn write(letters: &Letters) -> Bytes {
    let mut writer = FrameWriter::new();
    for (envelope, body) in letters {
        writer.push(&Part::encode(envelope, body.clone()));
    }
    writer.take()
}

fn read(frame: &Bytes) -> Vec<(Envelope, Bytes)> {
    let parts = decode(frame).expect("a frame").into_iter();
    parts.map(|part| (part.decode().expect("an envelope"), part.body)).collect()
}
