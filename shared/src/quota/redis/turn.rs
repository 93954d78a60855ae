//! core: settlements and reservations that come together, as one call for each tenant, and what its row of numbers means.
//!
//! A script costs some 40 µs before it has done anything: its accounts are read and written, and Lua itself is set up. The
//! operations of a tenant share that, and are still one turn of the server.

use super::Away;
use super::wire::{Answer, Call, Id, call, misunderstood, numbers, unsigned};
use crate::quota::{Amount, Decision, Outcome, Quota, Reason, Refusal, Reserve, Settle, Settled, Standing, Turn, Whose, Window};
use foldhash::HashMap;
use serde::Serialize;

/// Operations in one call: Redis does nothing else meanwhile, for a millisecond or two.
pub(super) const OPERATIONS_MAX: usize = 128;

/// Numbers in the answer to one settlement, and to one reservation.
const SETTLED_NUMBERS: usize = 2;
const DECIDED_NUMBERS: usize = 10;

/// A turn, cut into calls. Each tenant's operations keep their order, and settlements come first.
pub(super) struct Shares<'a> {
    ended: &'a [Settle],
    asked: &'a [Reserve],
    shares: Vec<Share<'a>>,
    /// By tenant, the share that is being filled.
    filling: HashMap<&'a str, usize>,
}

/// One call: operations of one tenant, by their places in the turn.
struct Share<'a> {
    tenant: &'a str,
    ended: Vec<usize>,
    asked: Vec<usize>,
}

/// Columns, not rows: a table less for Lua to make of each operation.
#[derive(Default, Serialize)]
struct Ask<'a> {
    now: Option<u64>,
    quotas: Vec<AskQuota>,
    /// The number of the tenant's quota; the key and the number of its own, where it has one.
    sides: Vec<(usize, Option<&'a str>, Option<usize>)>,
    ended: AskSettles<'a>,
    asked: AskReserves,
}

#[derive(Default, Serialize)]
struct AskSettles<'a> {
    ids: Vec<Id>,
    keys: Vec<&'a str>,
    ran: Vec<bool>,
    tokens: Vec<u64>,
    usd: Vec<u64>,
}

#[derive(Default, Serialize)]
struct AskReserves {
    ids: Vec<Id>,
    sides: Vec<usize>,
    tokens: Vec<u64>,
    usd: Vec<u64>,
}

/// What is absent is nil in Lua either way.
#[derive(Serialize)]
struct AskQuota {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_day: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_month: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usd_per_day: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// What is told once in a call, because most of its requests have the same: quotas, and pairs of them.
#[derive(Default)]
struct Table<'a> {
    quotas: Vec<&'a Quota>,
    sides: Vec<(usize, Option<&'a str>, Option<usize>)>,
}

impl<'a> Table<'a> {
    /// The number of what a request is counted against.
    fn sides_of(&mut self, one: &'a Reserve) -> usize {
        let of_tenant = number(&mut self.quotas, &*one.quotas.tenant, |a, b| std::ptr::eq(*a, *b));
        let of_key = one.limited_key().map(|(key, quota)| (&**key, number(&mut self.quotas, quota, |a, b| std::ptr::eq(*a, *b))));
        let (key, of_key) = of_key.unzip();
        number(&mut self.sides, (of_tenant, key, of_key), |a, b| a == b)
    }
}

/// The place of an entry that is there, or is put there: from 1, as Lua counts. A call has few.
fn number<T>(entries: &mut Vec<T>, entry: T, is_same: impl Fn(&T, &T) -> bool) -> usize {
    match entries.iter().position(|one| is_same(one, &entry)) {
        Some(place) => place + 1,
        None => {
            entries.push(entry);
            entries.len()
        }
    }
}

impl<'a> Shares<'a> {
    pub(super) fn of(ended: &'a [Settle], asked: &'a [Reserve]) -> Self {
        let mut turn = Self { ended, asked, shares: Vec::new(), filling: HashMap::default() };
        for (place, one) in ended.iter().enumerate() {
            turn.share_of(&one.tenant).ended.push(place);
        }
        for (place, one) in asked.iter().enumerate() {
            turn.share_of(&one.tenant).asked.push(place);
        }
        turn
    }

    fn share_of(&mut self, tenant: &'a str) -> &mut Share<'a> {
        let filling = self.filling.get(tenant).copied().filter(|&index| !self.shares[index].is_full());
        let index = filling.unwrap_or_else(|| {
            self.shares.push(Share { tenant, ended: Vec::new(), asked: Vec::new() });
            self.filling.insert(tenant, self.shares.len() - 1);
            self.shares.len() - 1
        });
        &mut self.shares[index]
    }

    pub(super) fn calls(&self, now: Option<u64>) -> Vec<Call> {
        self.shares.iter().map(|share| self.call(now, share)).collect()
    }

    fn call(&self, now: Option<u64>, share: &Share<'_>) -> Call {
        let (mut ask, mut table) = (Ask { now, ..Ask::default() }, Table::default());
        share.ended.iter().for_each(|&place| ask.ended.push(&self.ended[place]));
        share.asked.iter().for_each(|&place| ask.asked.push(&self.asked[place], &mut table));
        ask.quotas = table.quotas.into_iter().map(AskQuota::from).collect();
        ask.sides = table.sides;
        call(share.tenant, &ask)
    }

    /// Puts together what the calls were answered, in the order in which everything was asked.
    ///
    /// # Errors
    /// When the rows are not as long as they should be, or hold what no script says.
    pub(super) fn answer(&self, answers: &[Answer]) -> Result<Turn, Away> {
        let (mut settled, mut decisions) = (vec![None; self.ended.len()], vec![None; self.asked.len()]);
        for (share, row) in self.shares.iter().zip(answers) {
            let (of_ended, of_asked) = row.split_at_checked(share.ended.len() * SETTLED_NUMBERS).ok_or_else(misunderstood)?;
            for (&place, row) in share.ended.iter().zip(of_ended.chunks(SETTLED_NUMBERS)) {
                settled[place] = Some(read_settled(row)?);
            }
            for (&place, row) in share.asked.iter().zip(of_asked.chunks(DECIDED_NUMBERS)) {
                decisions[place] = Some(read_decision(row)?);
            }
        }
        let (settled, decisions) = (settled.into_iter().collect::<Option<_>>(), decisions.into_iter().collect::<Option<_>>());
        Ok(Turn { settled: settled.ok_or_else(misunderstood)?, decisions: decisions.ok_or_else(misunderstood)? })
    }
}

impl Share<'_> {
    fn is_full(&self) -> bool {
        self.ended.len() + self.asked.len() >= OPERATIONS_MAX
    }
}

impl<'a> AskSettles<'a> {
    fn push(&mut self, one: &'a Settle) {
        let used = match one.outcome {
            Outcome::Used { tokens, nano_usd } => Some(Amount::of_request(tokens, nano_usd)),
            Outcome::Refund => None,
        };
        let Amount { tokens, nano_usd } = used.unwrap_or_default();
        self.ids.push(Id(one.id));
        self.keys.push(one.key.as_deref().unwrap_or_default());
        self.ran.push(used.is_some());
        self.tokens.push(tokens);
        self.usd.push(nano_usd);
    }
}

impl AskReserves {
    fn push<'a>(&mut self, one: &'a Reserve, table: &mut Table<'a>) {
        let Amount { tokens, nano_usd } = Amount::of_request(one.tokens, one.nano_usd);
        self.ids.push(Id(one.id));
        self.sides.push(table.sides_of(one));
        self.tokens.push(tokens);
        self.usd.push(nano_usd);
    }
}

fn read_settled(row: &[i64]) -> Result<Settled, Away> {
    match numbers(row)? {
        [0, overrun] => Ok(Settled::Open { overrun: unsigned(overrun)? }),
        [1, _] => Ok(Settled::Unknown),
        [2, _] => Ok(Settled::Again),
        _ => Err(misunderstood()),
    }
}

fn read_decision(row: &[i64]) -> Result<Decision, Away> {
    let [decision, reason, whose, retry, requests @ .., limit, remaining, reset] = numbers::<DECIDED_NUMBERS>(row)?;
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
