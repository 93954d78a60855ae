//! edge: what the usage journal says of a tenant: the truth of money, from which every faster counter is made again.

mod answered;
mod tally;

pub use tally::{Spent, Sum, Totals};

use crate::broker::{Broker, BrokerError, Feed, Journal, Since};
use crate::calendar;
use crate::domain::Token;
use crate::hear;
use crate::wire::Call;
use std::time::Duration;
use tally::Tally;

/// The broker says within this that there is nothing.
const WAIT: Duration = Duration::from_millis(250);

/// How often in a row the broker may fail to send what it has, or to say anything, before that is a failure.
const SILENCES_MAX: u32 = 5;

/// A worker's clock may be ahead of the broker's by this, around the beginning of a month.
const SKEW: Duration = Duration::from_secs(60);

/// Sums what a tenant and each of its keys have used in the day and the month of `now` (time since 1970).
///
/// It reads every entry of the tenant's month, so it takes as long as there are many: give it a time limit.
///
/// # Errors
/// `Unavailable`, or `Gone` when the journal was made anew meanwhile: sum again.
pub async fn sum(broker: &dyn Broker, tenant: &str, now: Duration) -> Result<Sum, BrokerError> {
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let since = Duration::from_millis(calendar::month_start(now_ms)).saturating_sub(SKEW);
    let feed = Feed::Journal(Journal::Usage, Some(Token::of_name(tenant).into()));
    let mut follower = broker.follow(&feed, Since::Time(since)).await?;
    let (mut tally, mut silences) = (Tally::new(now_ms), 0);
    loop {
        let entry = match follower.next(WAIT).await {
            Err(BrokerError::Unavailable(_)) if silences < SILENCES_MAX => {
                silences += 1;
                continue;
            }
            next => next?,
        };
        let Some(entry) = entry else { return Ok(tally.sum()) };
        let calls = entry.value.iter().flat_map(hear::messages::<Call>);
        calls.filter(|(call, _)| *call.tenant == *tenant).for_each(|(call, _)| tally.add(&call));
        if !entry.more {
            return Ok(tally.sum());
        }
        silences = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::clock;
    use crate::wire::{FrameWriter, Part, sample_call};
    use bytes::Bytes;

    async fn append(broker: &dyn Broker, topic: &str, calls: &[Call]) {
        let mut frame = FrameWriter::new();
        calls.iter().for_each(|call| frame.push(&Part::encode(call, Bytes::new())));
        let id = crate::entropy::message_id();
        broker.append(Journal::Usage, &Token::of_name(topic).into(), &id, frame.take()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenants_entries_are_summed_and_no_others() {
        let (broker, now) = (MemoryBroker::new(), clock::unix());
        let at_ms = u64::try_from(now.as_millis()).unwrap();
        let call = |n, tenant: &str| Call { at_ms, tenant: tenant.into(), ..sample_call(n) };
        append(&*broker, "search", &[call(1, "search"), call(2, "search")]).await;
        append(&*broker, "search", &[call(3, "search"), call(4, "of the same token")]).await;
        append(&*broker, "other", &[call(5, "other")]).await;
        let sum = sum(&*broker, "search", now).await.unwrap();
        assert_eq!(sum.totals.month, Spent { calls: 3, input: 60, output: 15, nano_usd: 18_000 });
        assert_eq!(sum.counted.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_never_called_has_used_nothing() {
        let sum = sum(&*MemoryBroker::new(), "nobody", clock::unix()).await.unwrap();
        assert_eq!((sum.totals, sum.counted.len(), sum.keys.len()), (Totals::default(), 0, 0));
    }
}
