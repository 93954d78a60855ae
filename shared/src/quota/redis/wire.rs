//! edge: what the scripts are asked, as one MessagePack map, and what their rows of integers mean.

use super::Away;
use crate::domain::RequestId;
use crate::quota::{Amount, COUNTED_MAX, Look, Seed, Seeded, Totals, Usage};
use serde::{Serialize, Serializer};
use std::sync::Arc;
use uuid::fmt::Simple;

/// One call of a script.
pub(super) struct Call {
    /// The tenant's key, below which all of its keys are.
    pub(super) tenant: String,
    pub(super) asked: Vec<u8>,
}

pub(super) type Answer = Vec<i64>;

/// A request's id as text that sorts as the id does.
pub(super) struct Id(pub(super) RequestId);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.0.as_simple().encode_lower(&mut [0; Simple::LENGTH]))
    }
}

#[derive(Serialize)]
struct AskRenew {
    now: Option<u64>,
    ids: Vec<Id>,
}

#[derive(Serialize)]
struct AskSeed<'a> {
    now: Option<u64>,
    totals: [u64; 4],
    keys: Vec<(&'a str, [u64; 4])>,
    as_of: u64,
    counted: Vec<Id>,
    counted_from: u64,
    force: bool,
}

#[derive(Serialize)]
struct AskLook<'a> {
    now: Option<u64>,
    keys: Vec<&'a str>,
}

pub(super) fn renew(now: Option<u64>, tenant: &str, ids: &[RequestId]) -> Call {
    call(tenant, &AskRenew { now, ids: ids.iter().copied().map(Id).collect() })
}

pub(super) fn seed(now: Option<u64>, seed: &Seed) -> Call {
    let row = |totals: &Totals| [totals.day.tokens, totals.day.nano_usd, totals.month.tokens, totals.month.nano_usd];
    let asked = AskSeed {
        now,
        totals: row(&seed.totals),
        keys: seed.keys.iter().map(|(key, totals)| (&**key, row(totals))).collect(),
        as_of: seed.as_of,
        counted: seed.counted.iter().take(COUNTED_MAX).copied().map(Id).collect(),
        counted_from: seed.counted_from,
        force: seed.force,
    };
    call(&seed.tenant, &asked)
}

pub(super) fn look(now: Option<u64>, tenant: &str, keys: &[Arc<str>]) -> Call {
    call(tenant, &AskLook { now, keys: keys.iter().map(|key| &**key).collect() })
}

pub(super) fn call(tenant: &str, asked: &impl Serialize) -> Call {
    let asked = rmp_serde::to_vec_named(asked).expect("plain data is always encoded");
    Call { tenant: tenant_key(tenant), asked }
}

/// `tm:{…}`: a hash of the name, because a name may hold braces; in braces, so that a cluster keeps a tenant's keys together.
fn tenant_key(name: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("tm:{{{}}}", &hash[..24])
}

pub(super) fn misunderstood() -> Away {
    Away("the answer of a script is not understood".into())
}

pub(super) fn numbers<const N: usize>(answer: &[i64]) -> Result<[i64; N], Away> {
    answer.try_into().map_err(|_| misunderstood())
}

pub(super) fn unsigned(number: i64) -> Result<u64, Away> {
    number.try_into().map_err(|_| misunderstood())
}

pub(super) fn renewed(answer: &[i64]) -> Result<usize, Away> {
    let [renewed] = numbers::<1>(answer)?;
    usize::try_from(renewed).map_err(|_| misunderstood())
}

pub(super) fn seeded(answer: &[i64]) -> Result<Seeded, Away> {
    match numbers::<1>(answer)? {
        [0] => Ok(Seeded::Done),
        [1] => Ok(Seeded::Already),
        [2] => Ok(Seeded::OfAnotherDay),
        _ => Err(misunderstood()),
    }
}

pub(super) fn looked(answer: &[i64]) -> Result<Look, Away> {
    let mut usages = answer.chunks(10).map(usage);
    let tenant = usages.next().ok_or_else(misunderstood)??;
    Ok(Look { tenant, keys: usages.collect::<Result<_, _>>()? })
}

fn usage(row: &[i64]) -> Result<Usage, Away> {
    let [requests, tokens, open, held_tokens, held_usd, seeded, rest @ ..] = numbers::<10>(row)?;
    let amount = |tokens, usd| Ok(Amount { tokens: unsigned(tokens)?, nano_usd: unsigned(usd)? });
    let totals = Totals { day: amount(rest[0], rest[1])?, month: amount(rest[2], rest[3])? };
    Ok(Usage {
        requests: unsigned(requests)?,
        tokens: unsigned(tokens)?,
        open: unsigned(open)?,
        held: amount(held_tokens, held_usd)?,
        settled: (seeded == 1).then_some(totals),
    })
}
