//! What a driver does when another has its place, and when what it reads is gone.

use super::super::tenure::{claim, fail};
use super::super::yard::Composer;
use super::*;
use serde_json::json;
use shared::broker::Store;
use shared::broker::memory::MemoryBroker;
use shared::domain::Lane;
use shared::jobs::{Created, Cursor, Place};
use std::sync::Mutex;

/// An ingress that knows no model.
struct Alone {
    broker: Arc<dyn Broker>,
    off: Mutex<Vec<RequestId>>,
}

impl Alone {
    fn new(broker: &Arc<dyn Broker>) -> Arc<Self> {
        Arc::new(Self { broker: Arc::clone(broker), off: Mutex::default() })
    }
}

impl Yard for Alone {
    fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    fn now(&self) -> Time {
        Time::ZERO
    }

    fn unix_ms(&self) -> u64 {
        0
    }

    fn line_bytes_max(&self) -> usize {
        100
    }

    fn composer<'a>(&'a self, _: &'a Batch) -> Composer<'a> {
        Box::new(|_, _, _| Err(Failure::new(Code::ModelNotFound, "no such model")))
    }

    fn call_off(&self, ids: Vec<RequestId>) {
        self.off.lock().unwrap().extend(ids);
    }
}

fn batch() -> Batch {
    let batch = json!({
        "id": "batch_1", "tenant": "t", "role": "r", "op": "chat", "input": "file-1", "window": "24h", "state": "in_progress",
        "created_ms": 0, "expires_ms": 1, "counts": { "total": 0, "completed": 0, "failed": 0 }, "settled": 0,
        "cursor": { "part": 0, "offset": 0, "line": 0 },
    });
    serde_json::from_value(batch).unwrap()
}

fn file() -> File {
    let file = json!({
        "id": "file-1", "tenant": "t", "name": "f", "purpose": "batch", "bytes": 0, "lines": 0, "parts": 0, "created_ms": 0,
    });
    serde_json::from_value(file).unwrap()
}

#[tokio::test]
async fn a_driver_whose_place_is_anothers_writes_nothing_any_more() {
    let broker: Arc<dyn Broker> = MemoryBroker::new();
    let yard = Alone::new(&broker);
    assert!(matches!(jobs::create(broker.as_ref(), &batch()).await, Ok(Created::New { .. })));
    let mut stopped = Driver::resume(yard, claim(broker.as_ref(), &batch(), 7, 0, 0).await.unwrap(), file()).await.unwrap();
    let taken = claim(broker.as_ref(), &batch(), 9, 0, 0).await.unwrap();
    let mut segment = Segment::new(0, (Cursor::default(), Cursor::default()), vec![Row { custom_id: None, line: 1 }], vec![], Time::ZERO);
    segment.hear(stopped.outcome(0, 0, Halt::Cancelled.failure()), Bytes::new(), Time::ZERO);
    stopped.open.push_back(segment);
    assert!(matches!(stopped.settle().await, Err(StoreError::Broker(BrokerError::Conflict))));
    assert_eq!(stopped.batch.errors, None, "nothing is written");
    stopped.batch.settled = 3;
    for refused in [stopped.record().await, stopped.record().await, stopped.read_record().await] {
        assert!(matches!(refused, Err(StoreError::Broker(BrokerError::Conflict))), "{refused:?}");
    }
    assert_eq!(jobs::get::<Batch>(broker.as_ref(), "t", &batch().id).await.unwrap(), Some(taken));
    let late = claim(broker.as_ref(), &batch(), 8, 0, 0).await;
    assert!(late.is_err(), "an earlier lease takes nothing back");
}

#[tokio::test]
async fn a_batch_that_is_cancelled_as_it_ends_has_ended() {
    let broker: Arc<dyn Broker> = MemoryBroker::new();
    assert!(matches!(jobs::create(broker.as_ref(), &batch()).await, Ok(Created::New { .. })));
    let yard = Alone::new(&broker);
    let driver = Driver::resume(yard, claim(broker.as_ref(), &batch(), 7, 0, 0).await.unwrap(), file()).await.unwrap();
    let cancel = |batch: &mut Batch| {
        (batch.state, batch.cancelling_ms) = (BatchState::Cancelling, Some(1));
        true
    };
    jobs::change(broker.as_ref(), "t", &batch().id, cancel).await.unwrap();
    assert_eq!(driver.finish().await.unwrap().state, BatchState::Completed);
    let stored: Stored<Batch> = jobs::get(broker.as_ref(), "t", &batch().id).await.unwrap().unwrap();
    assert_eq!(stored.value.state, BatchState::Completed);
}

#[tokio::test]
async fn a_batch_whose_input_has_lost_a_part_fails_and_calls_its_lines_off() {
    let broker: Arc<dyn Broker> = MemoryBroker::new();
    assert!(matches!(jobs::create(broker.as_ref(), &batch()).await, Ok(Created::New { .. })));
    let (yard, claimed) = (Alone::new(&broker), claim(broker.as_ref(), &batch(), 7, 1, 0).await.unwrap());
    let driver = Driver::resume(Arc::<Alone>::clone(&yard), claimed, File { parts: 1, ..file() }).await.unwrap();
    jobs::commit(broker.as_ref(), vec![driver.commit(0, 0, Halt::Cancelled.failure())]).await;
    let failed = driver.run().await.unwrap();
    assert_eq!((failed.state, failed.ended_ms, failed.failure.unwrap().code), (BatchState::Failed, Some(0), Code::NotFound));
    let stored: Stored<Batch> = jobs::get(broker.as_ref(), "t", &batch().id).await.unwrap().unwrap();
    assert_eq!(stored.value.state, BatchState::Failed);
    assert!(yard.off.lock().unwrap().contains(&row_id(&batch().id, 0, 0)));
    assert!(jobs::outcomes(broker.as_ref(), &jobs::topic(&batch().id, 0)).await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_fails_a_batch_that_another_has_taken() {
    let broker: Arc<dyn Broker> = MemoryBroker::new();
    assert!(matches!(jobs::create(broker.as_ref(), &batch()).await, Ok(Created::New { .. })));
    let (yard, taken) = (Alone::new(&broker), claim(broker.as_ref(), &batch(), 9, 1, 0).await.unwrap());
    let refused = fail(yard.as_ref(), &batch(), 7).await;
    assert!(matches!(refused, Err(StoreError::Broker(BrokerError::Conflict))), "{refused:?}");
    assert_eq!(jobs::get::<Batch>(broker.as_ref(), "t", &batch().id).await.unwrap(), Some(taken));
    assert!(yard.off.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_line_that_is_refused_when_it_is_asked_after_has_ended() {
    let (broker, file): (Arc<dyn Broker>, File) = (MemoryBroker::new(), File { parts: 1, ..file() });
    let lines = Bytes::from_static(b"{\"body\":{}}\n{\"body\":{}}\n");
    broker.blob_put(Store::Files, &File::part_key(file.content(), 0), lines).await.unwrap();
    assert!(matches!(jobs::create(broker.as_ref(), &batch()).await, Ok(Created::New { .. })));
    let claimed = claim(broker.as_ref(), &batch(), 7, 2, 0).await.unwrap();
    let mut driver = Driver::resume(Alone::new(&broker), claimed, file).await.unwrap();
    let rows = [1, 2].map(|line| Row { custom_id: None, line }).into();
    let mut segment = Segment::new(0, (Cursor::default(), Cursor::default()), rows, vec![], Time::ZERO);
    segment.frames = vec![Place { lane: Lane::Bulk, epoch: 0, sequence: 1 }];
    segment.hear(driver.outcome(0, 0, Halt::Expired.failure()), Bytes::new(), Time::ZERO);
    driver.open.push_back(segment);
    driver.ask_after(0, Time::ZERO).await.unwrap();
    let ended = jobs::outcomes(broker.as_ref(), &jobs::topic(&batch().id, 0)).await.unwrap();
    let ended: Vec<_> = ended.iter().map(|(outcome, _)| (outcome.row, outcome.failure.as_ref().unwrap().code)).collect();
    assert_eq!(ended, [(1, Code::ModelNotFound)]);
    driver.hear().await.unwrap();
    assert!(driver.open[0].is_settled() && driver.open[0].frames.is_empty());
}
