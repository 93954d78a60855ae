//! core: what a request's only right answer is, computed here again on purpose: an answer to somebody else's prompt, or one put
//! together from two executions, must not be able to hide behind shared code.
//!
//! Each backend has a hash key of its own, so that the words and the vectors tell which backend made them.

use super::journal::Kind;
use crate::harness::prompt;
use loadtest::{draw, tag};

/// The sandbox's vocabulary.
const WORDS: [&str; 16] =
    ["water", "turns", "the", "wheel", "while", "tide", "and", "moon", "agree", "on", "slow", "patient", "work", "below", "grey", "stone"];

const DIMENSIONS: usize = 64;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash key of a backend.
pub(super) fn key(backend: usize) -> String {
    format!("backend-{backend}")
}

/// The prompt of a call. `told` is what it tells the backend to do wrong. The words differ from those of any other call, so that the
/// vectors do.
pub(super) fn prompt_of(seed: u64, call: u64, told: &str) -> String {
    let words = [seed, !seed, seed.rotate_left(17)].map(|seed| format!("{:x}", draw::bits(seed, call)));
    prompt(&format!("call {call} of run {seed} {} {told}", words.join(" ")))
}

/// Tokens that a call asks for. Streams are long enough to be interrupted.
pub(super) const fn tokens(kind: Kind) -> u32 {
    match kind {
        Kind::Stream => 24,
        Kind::Chat | Kind::Job | Kind::ChatRow => 8,
        Kind::Embed | Kind::EmbedRow => 0,
    }
}

/// The backend, of this many, that made an answer of this digest; none if it is no answer to this prompt.
pub(super) fn backend_of(digest: &str, kind: Kind, prompt: &str, backends: usize) -> Option<usize> {
    (0..backends).find(|backend| right(kind, *backend, prompt) == digest)
}

/// The digest of a backend's answer.
pub(super) fn right(kind: Kind, backend: usize, prompt: &str) -> String {
    let key = &key(backend);
    match kind {
        Kind::Embed | Kind::EmbedRow => of_vector(&vector(key, prompt)),
        Kind::Chat | Kind::Stream | Kind::Job | Kind::ChatRow => of_text(&text(key, prompt, tokens(kind))),
    }
}

pub(super) fn of_text(text: &str) -> String {
    format!("{:016x}", fnv(FNV_OFFSET, text.as_bytes()))
}

pub(super) fn of_vector(vector: &[f32]) -> String {
    format!("{:016x}", vector.iter().fold(FNV_OFFSET, |hash, x| fnv(hash, &x.to_le_bytes())))
}

/// Words drawn by the prompt's hash, and its tag at the end.
pub(super) fn text(key: &str, prompt: &str, tokens: u32) -> String {
    let hash = tag::hash(key, prompt);
    let word = |index: u32| WORDS[usize::try_from(hash.rotate_right(index % 16 * 4) % 16).expect("below 16")].to_owned();
    let words: Vec<String> = (0..tokens - 1).map(word).chain([tag::of(key, prompt)]).collect();
    words.join(" ")
}

/// Feature hashing over words and pairs of words, to length 1.
fn vector(key: &str, text: &str) -> Vec<f32> {
    let keyed = fnv(fnv(FNV_OFFSET, key.as_bytes()), &[0]);
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut vector = vec![0.0_f32; DIMENSIONS];
    for (index, word) in words.iter().enumerate() {
        add(&mut vector, fnv(keyed, word.as_bytes()));
        if index > 0 {
            add(&mut vector, fnv(keyed, format!("{} {word}", words[index - 1]).as_bytes()));
        }
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

fn add(vector: &mut [f32], feature: u64) {
    let place = usize::try_from(feature % DIMENSIONS as u64).expect("below the dimensions");
    vector[place] += if feature >> 63 == 0 { 1.0 } else { -1.0 };
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}
