//! edge: what the scripts are asked, as one MessagePack map, and what their rows of integers mean.

use super::Away;
use crate::domain::RequestId;
use crate::quota::{
    Amount, COUNTED_MAX, Decision, Look, Outcome, Quota, Reason, Refusal, Reserve, Seed, Seeded, Settle, Settled, Standing, Totals, Usage,
    Whose, Window,
};
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
struct Id(RequestId);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.0.as_simple().encode_lower(&mut [0; Simple::LENGTH]))
    }
}

#[derive(Serialize)]
struct AskReserve<'a> {
    now: Option<u64>,
    id: Id,
    tokens: u64,
    usd: u64,
    tenant: AskQuota,
    key: Option<&'a str>,
    of_key: Option<AskQuota>,
}

#[derive(Serialize)]
struct AskQuota {
    request_rate: Option<u64>,
    request_burst: Option<u64>,
    token_rate: Option<u64>,
    token_burst: Option<u64>,
    concurrency: Option<u32>,
    tokens_per_day: Option<u64>,
    tokens_per_month: Option<u64>,
    usd_per_day: Option<u64>,
    usd_per_month: Option<u64>,
    has_budget: bool,
}

impl From<&Quota> for AskQuota {
    fn from(quota: &Quota) -> Self {
        let (requests, tokens) = (quota.requests(), quota.tokens());
        Self {
            request_rate: requests.map(|rate| rate.per_minute),
            request_burst: requests.map(|rate| rate.burst),
            token_rate: tokens.map(|rate| rate.per_minute),
            token_burst: tokens.map(|rate| rate.burst),
            concurrency: quota.concurrency,
            tokens_per_day: quota.tokens_per_day,
            tokens_per_month: quota.tokens_per_month,
            usd_per_day: quota.usd_per_day.map(|usd| usd.0),
            usd_per_month: quota.usd_per_month.map(|usd| usd.0),
            has_budget: quota.has_budget(),
        }
    }
}

#[derive(Serialize)]
struct AskSettle<'a> {
    now: Option<u64>,
    id: Id,
    key: Option<&'a str>,
    used: bool,
    tokens: u64,
    usd: u64,
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

pub(super) fn reserve(now: Option<u64>, one: &Reserve) -> Call {
    let Amount { tokens, nano_usd: usd } = Amount::of_request(one.tokens, one.nano_usd);
    let key = one.limited_key();
    let asked = AskReserve {
        now,
        id: Id(one.id),
        tokens,
        usd,
        tenant: (&*one.quotas.tenant).into(),
        key: key.map(|(name, _)| &**name),
        of_key: key.map(|(_, quota)| quota.into()),
    };
    call(&one.tenant, &asked)
}

pub(super) fn settle(now: Option<u64>, one: &Settle) -> Call {
    let used = match one.outcome {
        Outcome::Used { tokens, nano_usd } => Some(Amount::of_request(tokens, nano_usd)),
        Outcome::Refund => None,
    };
    let Amount { tokens, nano_usd: usd } = used.unwrap_or_default();
    call(&one.tenant, &AskSettle { now, id: Id(one.id), key: one.key.as_deref(), used: used.is_some(), tokens, usd })
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

fn call(tenant: &str, asked: &impl Serialize) -> Call {
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

fn numbers<const N: usize>(answer: &[i64]) -> Result<[i64; N], Away> {
    answer.try_into().map_err(|_| misunderstood())
}

fn unsigned(number: i64) -> Result<u64, Away> {
    number.try_into().map_err(|_| misunderstood())
}

pub(super) fn decision(answer: &[i64]) -> Result<Decision, Away> {
    let [decision, reason, whose, retry, requests @ .., limit, remaining, reset] = numbers::<10>(answer)?;
    let standing = Standing { requests: window(requests)?, tokens: window([limit, remaining, reset])? };
    match decision {
        0 => Ok(Decision::Granted(standing)),
        1 => Ok(Decision::Refused(refusal(reason, whose, retry, standing)?)),
        2 => Ok(Decision::Unseeded),
        _ => Err(misunderstood()),
    }
}

fn window([limit, remaining, reset]: [i64; 3]) -> Result<Option<Window>, Away> {
    let reset_ms = reset.try_into().map_err(|_| misunderstood())?;
    let window = Window { limit: unsigned(limit)?, remaining: unsigned(remaining)?, reset_ms };
    Ok((limit > 0).then_some(window))
}

fn refusal(reason: i64, whose: i64, retry: i64, standing: Standing) -> Result<Refusal, Away> {
    let reason = usize::try_from(reason).ok().and_then(|index| Reason::ALL.get(index));
    let reason = *reason.ok_or_else(misunderstood)?;
    let whose = if whose == 0 { Whose::Tenant } else { Whose::Key };
    Ok(Refusal { reason, whose, retry_after_ms: retry.try_into().ok(), standing })
}

pub(super) fn settled(answer: &[i64]) -> Result<Settled, Away> {
    match numbers::<2>(answer)? {
        [0, overrun] => Ok(Settled::Open { overrun: unsigned(overrun)? }),
        [1, _] => Ok(Settled::Unknown),
        [2, _] => Ok(Settled::Again),
        _ => Err(misunderstood()),
    }
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
