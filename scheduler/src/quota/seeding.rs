//! edge: what the usage journal says of a tenant, in the ledger's terms.

use shared::broker::{Broker, BrokerError};
use shared::clock;
use shared::quota::{Amount, Seed, Totals};
use shared::usage::{self, Spent};
use std::sync::Arc;
use std::time::Duration;

/// Time for a tenant's month to be read: some millions of calls. Its requests wait for it, or are refused meanwhile.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// The sum of a tenant's usage. `asking` are keys that ask: they are named even where they have used nothing yet.
pub(super) async fn sum(broker: &dyn Broker, tenant: &Arc<str>, asking: &[Arc<str>], force: bool) -> Result<Seed, BrokerError> {
    let read = tokio::time::timeout(READ_WITHIN, usage::sum(broker, tenant, clock::unix())).await;
    let sum = read.map_err(|_| BrokerError::Unavailable("the usage journal was not read in time".into()))??;
    let mut keys: Vec<(Arc<str>, Totals)> = sum.keys.iter().map(|(id, of_key)| (Arc::from(&**id), totals(of_key))).collect();
    let unused = asking.iter().filter(|key| !sum.keys.contains_key(&***key));
    keys.extend(unused.map(|key| (Arc::clone(key), Totals::default())));
    Ok(Seed {
        tenant: Arc::clone(tenant),
        totals: totals(&sum.totals),
        keys,
        as_of: sum.as_of,
        counted: sum.counted.iter().map(|(_, id)| *id).collect(),
        counted_from: sum.counted_from,
        force,
    })
}

fn totals(of: &usage::Totals) -> Totals {
    Totals { day: amount(&of.day), month: amount(&of.month) }
}

const fn amount(spent: &Spent) -> Amount {
    Amount { tokens: spent.tokens(), nano_usd: spent.nano_usd }
}
