//! core: embeddings by feature hashing (Weinberger et al., ICML 2009): each 1-gram and 2-gram of words adds ±1 at the
//! place that its hash says. Close texts get close vectors, and no two texts are likely to share one.

use super::hash::Fnv;

/// Of a text: its words are the runs of letters and digits, in lower case; a text without any is one feature.
pub(crate) fn of_text(text: &str, dimensions: usize, key: Fnv) -> Vec<f32> {
    let lower = text.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return of_features(std::iter::once(lower.as_bytes()), dimensions, key);
    }
    of_features(words.map(str::as_bytes), dimensions, key)
}

/// Of token ids, each as eight little-endian bytes.
pub(crate) fn of_tokens(ids: &[u64], dimensions: usize, key: Fnv) -> Vec<f32> {
    let ids: Vec<_> = ids.iter().map(|id| id.to_le_bytes()).collect();
    of_features(ids.iter().map(<[u8; 8]>::as_slice), dimensions, key)
}

fn of_features<'a>(words: impl Iterator<Item = &'a [u8]>, dimensions: usize, key: Fnv) -> Vec<f32> {
    let mut vector = vec![0.0_f32; dimensions];
    let mut previous: Option<Fnv> = None;
    for word in words {
        let one = key.bytes(word);
        add(&mut vector, one);
        if let Some(previous) = previous {
            add(&mut vector, previous.bytes(b" ").bytes(word));
        }
        previous = Some(one);
    }
    normalized(vector)
}

fn add(vector: &mut [f32], feature: Fnv) {
    let hash = feature.finish();
    let place = usize::try_from(hash % vector.len() as u64).expect("smaller than a length");
    vector[place] += if hash >> 63 == 0 { 1.0 } else { -1.0 };
}

/// To length 1. Features that cancel each other out leave the first unit vector.
fn normalized(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length == 0.0 {
        vector[0] = 1.0;
    } else {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<f32> {
        of_text(text, 64, Fnv::keyed(b"k"))
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn vectors_have_length_one_whatever_the_text() {
        for text in ["a", "The quick brown fox", "!!!", "日本語 текст", &"x y ".repeat(500)] {
            assert!((cosine(&of(text), &of(text)) - 1.0).abs() < 1e-5, "{text}");
        }
        assert_eq!(of_tokens(&[1, 2], 1, Fnv::keyed(b"k")).len(), 1);
    }

    #[test]
    fn case_and_punctuation_do_not_matter_but_order_does() {
        assert_eq!(of("Quick, brown FOX!"), of("quick brown fox"));
        assert_ne!(of("dog bites man"), of("man bites dog"));
    }

    #[test]
    fn close_texts_are_closer_than_strange_ones() {
        let text = of("library for reading compressed archives");
        assert!(
            cosine(&text, &of("library for writing compressed archives")) > cosine(&text, &of("a game of chess with ten levels")) + 0.2
        );
    }

    #[test]
    fn another_key_gives_another_space() {
        assert_ne!(of_text("a", 64, Fnv::keyed(b"k")), of_text("a", 64, Fnv::keyed(b"l")));
    }
}
