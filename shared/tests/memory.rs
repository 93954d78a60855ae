//! The contract of the broker port, on the in-process edge, in paused time.

use shared::broker::contract::{self, Pair};
use shared::broker::memory::MemoryBroker;

fn pair() -> Pair {
    let broker = MemoryBroker::with_limits(&contract::limits());
    Pair { one: broker.clone(), other: broker }
}

#[tokio::test(start_paused = true)]
async fn the_memory_broker_keeps_the_contract() {
    contract::run(&pair()).await;
}

#[tokio::test(start_paused = true)]
async fn the_memory_broker_keeps_the_slow_contract() {
    contract::run_slow(&pair()).await;
}

#[tokio::test(start_paused = true)]
async fn the_memory_broker_says_when_it_is_full() {
    let broker = MemoryBroker::with_limits(&contract::cramped());
    contract::run_cramped(&Pair { one: broker.clone(), other: broker }).await;
}
