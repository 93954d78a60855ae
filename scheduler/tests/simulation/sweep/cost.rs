//! core: what a call costs a simulated accelerator, and how long texts are.

use crate::rng::Rng;
use std::time::Duration;

/// The longest text, in tokens: as the small embedding models take them.
pub(crate) const LONGEST: u32 = 256;

/// `fixed + per_token · tokens`, in milliseconds; each token past the knee costs so many times as much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) fixed: f64,
    pub(crate) per_token: f64,
    pub(crate) knee: Option<(f64, f64)>,
    /// Each input costs what the longest does.
    pub(crate) padded: bool,
    /// Standard deviation of a call's time, relative to it.
    pub(crate) noise: f64,
}

impl Cost {
    pub(crate) const fn padding(fixed: f64, per_token: f64) -> Self {
        Self { fixed, per_token, knee: None, padded: true, noise: 0.0 }
    }

    /// What a call takes for these lengths.
    pub(crate) fn of(&self, lengths: &[u32]) -> f64 {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let tokens = if self.padded { longest * lengths.len() as u32 } else { lengths.iter().sum() };
        self.of_tokens(f64::from(tokens))
    }

    pub(crate) fn of_tokens(&self, tokens: f64) -> f64 {
        let beyond = self.knee.map_or(0.0, |(knee, times)| (tokens - knee).max(0.0) * (times - 1.0));
        self.fixed + self.per_token * (tokens + beyond)
    }

    pub(crate) fn draw(&self, rng: &mut Rng, lengths: &[u32]) -> Duration {
        ms(self.of(lengths) * (1.0 + self.noise * normal(rng)).max(0.2))
    }
}

pub(crate) fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1_000.0)
}

/// Lengths of texts, in tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lengths {
    All(u32),
    /// Log-normal with a mean of 36: most are short, a few reach [`LONGEST`].
    Mixed,
}

impl Lengths {
    pub(crate) fn draw(self, rng: &mut Rng) -> u32 {
        match self {
            Self::All(tokens) => tokens,
            Self::Mixed => ((22.5_f64.ln() + normal(rng)).exp() as u32).clamp(1, LONGEST),
        }
    }

    pub(crate) fn many(self, count: usize) -> Vec<u32> {
        let mut rng = Rng::new(7);
        (0..count).map(|_| self.draw(&mut rng)).collect()
    }

    pub(crate) fn mean(self) -> f64 {
        let many = self.many(20_000);
        many.iter().copied().map(f64::from).sum::<f64>() / many.len() as f64
    }
}

/// Irwin and Hall's: twelve uniform draws.
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| (rng.draw() >> 11) as f64 / (1_u64 << 53) as f64).sum::<f64>() - 6.0
}

/// Texts a second of calls of `count` texts in the order of their arrival.
pub(crate) fn in_arrival_order(cost: &Cost, lengths: Lengths, count: usize) -> f64 {
    let texts = lengths.many(8_192);
    let took: f64 = texts.chunks(count).map(|call| cost.of(call)).sum();
    texts.len() as f64 / took * 1_000.0
}

/// Texts a second of the best call size in arrival order that so many callers can fill, one by one included, and that size.
pub(crate) fn best_in_arrival_order(cost: &Cost, lengths: Lengths, callers: usize) -> (f64, usize) {
    let sizes = [1, 2, 4, 8, 16, 32, 64].into_iter().filter(|count| *count <= callers);
    let rates = sizes.map(|count| (in_arrival_order(cost, lengths, count), count));
    rates.fold((0.0, 0), |best, one| if one.0 > best.0 { one } else { best })
}

/// Texts a second of full calls without a padded token: nobody can do better.
pub(crate) fn bound(cost: &Cost, lengths: Lengths, max_items: u32) -> f64 {
    1_000.0 / (cost.fixed / f64::from(max_items) + cost.per_token * lengths.mean())
}

/// Tokens a second of the best fixed limit that keeps the objective, up to `max`.
pub(crate) fn best_limit(cost: &Cost, objective: f64, max: f64) -> f64 {
    let sizes = (1..=400).map(|n| max * f64::from(n) / 400.0).filter(|tokens| cost.of_tokens(*tokens) <= objective);
    sizes.map(|tokens| tokens / cost.of_tokens(tokens) * 1_000.0).fold(0.0, f64::max)
}
