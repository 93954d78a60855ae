//! edge: what a local model makes of texts when nothing stands between: called in a tight loop, with the best fixed batch size.
//!
//!     cargo run --release -p workers --features local --example embed_loop -- MODEL_DIR TEXTS [VECTORS.npy]
//!
//! TEXTS has one text on each line. Batches are cut in the order of the file. With the vectors that somebody else has made of
//! the same texts, it says how near they are: the least cosine of all rows.

use shared::clock;
use std::error::Error;
use std::path::Path;
use std::time::Duration;
use workers::local::Model;

/// Sizes that are tried, on the first texts.
const SIZES: [usize; 6] = [1, 4, 8, 16, 32, 64];
const TRIED: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, texts, rest @ ..] = args.as_slice() else { return Err("say MODEL_DIR TEXTS [VECTORS.npy]".into()) };
    let model = Model::load(Path::new(folder))?;
    let text = std::fs::read_to_string(texts)?;
    let texts: Vec<&str> = text.lines().collect();
    let mut best = (Duration::MAX, 1);
    for size in SIZES {
        let (took, _) = embed(&model, &texts[..texts.len().min(TRIED)], size)?;
        say(&format!("{size} texts a call: {:.0} texts/s", rate(texts.len().min(TRIED), took)));
        best = best.min((took, size));
    }
    let (took, vectors) = embed(&model, &texts, best.1)?;
    say(&format!("all {} at {} a call: {:.1} s, {:.0} texts/s", texts.len(), best.1, took.as_secs_f64(), rate(texts.len(), took)));
    if let Some(others) = rest.first() {
        let others = npy(&std::fs::read(others)?, model.dimensions());
        let least = vectors.iter().zip(&others).map(|(one, other)| cosine(one, other)).fold(f64::INFINITY, f64::min);
        say(&format!("{} of {} vectors compared; the least cosine is {least:.7}", others.len().min(vectors.len()), vectors.len()));
    }
    Ok(())
}

fn embed(model: &Model, texts: &[&str], size: usize) -> Result<(Duration, Vec<Vec<f32>>), Box<dyn Error>> {
    let began = clock::now();
    let mut vectors = Vec::with_capacity(texts.len());
    for call in texts.chunks(size) {
        vectors.extend(model.embed(call)?.vectors);
    }
    Ok((clock::now().since(began), vectors))
}

/// The rows of a NumPy file of 32-bit floats.
fn npy(bytes: &[u8], dimensions: usize) -> Vec<Vec<f32>> {
    let head = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let numbers = bytes[head..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<_>>();
    numbers.chunks_exact(dimensions).map(<[f32]>::to_vec).collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    product(one, other) / (product(one, one) * product(other, other)).sqrt()
}

#[expect(clippy::cast_precision_loss, reason = "a count of texts")]
fn rate(texts: usize, took: Duration) -> f64 {
    texts as f64 / took.as_secs_f64()
}

#[expect(clippy::print_stdout, reason = "this program is there to print")]
fn say(line: &str) {
    println!("{line}");
}
