//! core: what a model's tokens cost. Money is whole nano-dollars everywhere: sums of decimals drift.

use crate::wire::Usage;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// US dollars for each million tokens. Free unless the file says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Price {
    #[serde(serialize_with = "to_usd", deserialize_with = "from_usd")]
    input_per_million: u64,
    #[serde(serialize_with = "to_usd", deserialize_with = "from_usd")]
    output_per_million: u64,
}

const MILLION: u128 = 1_000_000;

const NANO: f64 = 1e9;

/// No model costs a dollar for each token; up to here nine decimals are read exactly.
const USD_MAX: f64 = 1e6;

impl Price {
    /// What a call costs, in nano-dollars, rounded up: what is used is never free.
    pub fn cost(self, usage: Usage) -> u64 {
        let input = u128::from(self.input_per_million) * u128::from(usage.input);
        let output = u128::from(self.output_per_million) * u128::from(usage.output);
        u64::try_from((input + output).div_ceil(MILLION)).unwrap_or(u64::MAX)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's serialize_with passes a reference")]
#[expect(clippy::cast_precision_loss, reason = "exact below the greatest price")]
fn to_usd<S: Serializer>(nano: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*nano as f64 / NANO)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked before")]
fn from_usd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let usd = f64::deserialize(deserializer)?;
    if !(0.0..=USD_MAX).contains(&usd) {
        return Err(serde::de::Error::custom("a price is from 0 to 1000000 US dollars for each million tokens, such as 0.15"));
    }
    Ok((usd * NANO).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(yaml: &str) -> Price {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn a_cost_is_exact_and_rounded_up() {
        let price = price("{ input_per_million: 0.15, output_per_million: 0.6 }");
        assert_eq!(price.cost(Usage { input: 1_000_000, output: 0 }), 150_000_000);
        assert_eq!(price.cost(Usage { input: 1, output: 1 }), 750);
        let cheap = Price { input_per_million: 1, output_per_million: 0 };
        assert_eq!((cheap.cost(Usage { input: 1, output: 9 }), cheap.cost(Usage::default())), (1, 0));
    }

    #[test]
    fn the_dearest_call_is_counted() {
        let dearest = Price { input_per_million: 1_000_000_000_000_000, output_per_million: 1_000_000_000_000_000 };
        assert_eq!(dearest.cost(Usage { input: u32::MAX, output: u32::MAX }), 2 * u64::from(u32::MAX) * 1_000_000_000);
    }

    #[test]
    fn a_price_is_written_as_it_was_read() {
        let price = price("{ input_per_million: 0.123456789 }");
        assert_eq!(serde_saphyr::from_str::<Price>(&serde_saphyr::to_string(&price).unwrap()).unwrap(), price);
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for bad in ["{ input_per_million: -1 }", "{ input_per_million: .nan }", "{ output_per_million: 1000001 }", "{ per_million: 1 }"] {
            assert!(serde_saphyr::from_str::<Price>(bad).is_err(), "{bad}");
        }
    }
}
