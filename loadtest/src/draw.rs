//! core: repeatable draws: the n-th of a seed is always the same, so that every contender meets the same arrivals and texts.

/// Steps and mixers of `SplitMix64` (Steele, Lea, Flood, OOPSLA'14).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

/// 64 even bits.
pub const fn bits(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(STEP.wrapping_mul(n.wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(MIX[0]);
    z = (z ^ (z >> 27)).wrapping_mul(MIX[1]);
    z ^ (z >> 31)
}

/// An even draw of [0, 1).
pub fn unit(seed: u64, n: u64) -> f64 {
    (bits(seed, n) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_generator() {
        assert_eq!([bits(0, 0), bits(0, 1)], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn draws_are_even() {
        let mean = (0..10_000).map(|n| unit(7, n)).sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "{mean}");
    }
}
