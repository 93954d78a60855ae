//! edge: the records of jobs, batches and files in the broker's buckets, changed by compare-and-set.

use crate::broker::{Broker, BrokerError, Bucket, Entry, Feed, Since, Topic};
use crate::domain::Token;
use crate::wire::{BadFrame, decode, encode_one};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How often a change is tried against others who change the same record: they are few, and each wins once.
const TRIES_MAX: usize = 64;

/// What is kept under a tenant and an id.
pub trait Kept: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    const BUCKET: Bucket;

    fn tenant(&self) -> &str;

    fn id(&self) -> &Token;
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    pub value: T,
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created<T> {
    New {
        revision: u64,
    },
    /// There was one under this id.
    Known(Box<Stored<T>>),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("there is no such record")]
    NotFound,
    #[error("the record cannot be read: {0}")]
    Unreadable(#[from] BadFrame),
}

fn key(tenant: &str, id: &Token) -> String {
    format!("{}.{id}", Token::of_name(tenant))
}

fn encode<T: Kept>(value: &T) -> Bytes {
    encode_one(value, &[])
}

fn parse<T: Kept>(value: &Bytes) -> Result<T, StoreError> {
    let parts = decode(value)?;
    let part = parts.first().ok_or(BadFrame::Empty)?;
    Ok(part.decode()?)
}

/// The record of an entry of its bucket's feed; none where it was deleted.
///
/// # Errors
/// `Unreadable`.
pub fn of_entry<T: Kept>(entry: &Entry) -> Result<Option<Stored<T>>, StoreError> {
    let Some(value) = &entry.value else { return Ok(None) };
    Ok(Some(Stored { value: parse(value)?, revision: entry.sequence }))
}

/// Writes a new record, or finds the one that is there.
///
/// # Errors
/// Those of the broker.
pub async fn create<T: Kept>(broker: &dyn Broker, value: &T) -> Result<Created<T>, StoreError> {
    for _ in 0..TRIES_MAX {
        match broker.record_create(T::BUCKET, &key(value.tenant(), value.id()), encode(value)).await {
            Ok(revision) => return Ok(Created::New { revision }),
            Err(BrokerError::Conflict) => {
                if let Some(stored) = get(broker, value.tenant(), value.id()).await? {
                    return Ok(Created::Known(Box::new(stored)));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(BrokerError::Conflict.into())
}

/// # Errors
/// Those of the broker, and `Unreadable`.
pub async fn get<T: Kept>(broker: &dyn Broker, tenant: &str, id: &Token) -> Result<Option<Stored<T>>, StoreError> {
    let Some(record) = broker.record_get(T::BUCKET, &key(tenant, id)).await? else { return Ok(None) };
    Ok(Some(Stored { value: parse(&record.value)?, revision: record.revision }))
}

/// All records of a tenant, in no order. What cannot be read is left out.
///
/// # Errors
/// Those of the broker.
pub async fn all<T: Kept>(broker: &dyn Broker, tenant: &str) -> Result<Vec<Stored<T>>, StoreError> {
    let feed = Feed::Records(T::BUCKET, Some(Topic::from(Token::of_name(tenant))));
    let mut follower = broker.follow(&feed, Since::Start).await?;
    let mut values = Vec::new();
    while let Some(entry) = follower.next(Duration::ZERO).await? {
        values.extend(of_entry(&entry).ok().flatten());
        if !entry.more {
            break;
        }
    }
    Ok(values)
}

/// Writes a record that must still be at `revision`. Returns the new one.
///
/// # Errors
/// `Conflict`, and whatever else the broker says.
pub async fn replace<T: Kept>(broker: &dyn Broker, value: &T, revision: u64) -> Result<u64, StoreError> {
    Ok(broker.record_update(T::BUCKET, &key(value.tenant(), value.id()), encode(value), revision).await?)
}

/// Changes a record as `change` says, against whatever others write meanwhile. `change` returns false to leave it alone.
/// Returns the record as it then is.
///
/// # Errors
/// `NotFound`, `Unreadable`, and those of the broker.
pub async fn change<T: Kept>(
    broker: &dyn Broker,
    tenant: &str,
    id: &Token,
    change: impl Fn(&mut T) -> bool,
) -> Result<Stored<T>, StoreError> {
    for _ in 0..TRIES_MAX {
        let mut stored: Stored<T> = get(broker, tenant, id).await?.ok_or(StoreError::NotFound)?;
        if !change(&mut stored.value) {
            return Ok(stored);
        }
        match replace(broker, &stored.value, stored.revision).await {
            Ok(revision) => return Ok(Stored { revision, ..stored }),
            Err(StoreError::Broker(BrokerError::Conflict)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(BrokerError::Conflict.into())
}

/// Deletes a record that must still be at `revision`.
///
/// # Errors
/// `Conflict`, and whatever else the broker says.
pub async fn delete_at<T: Kept>(broker: &dyn Broker, tenant: &str, id: &Token, revision: u64) -> Result<(), BrokerError> {
    broker.record_delete(T::BUCKET, &key(tenant, id), revision).await
}

/// Deletes a record, whatever it has become; deleting what is not there is no error.
///
/// # Errors
/// Those of the broker.
pub async fn delete<T: Kept>(broker: &dyn Broker, tenant: &str, id: &Token) -> Result<(), StoreError> {
    let key = key(tenant, id);
    for _ in 0..TRIES_MAX {
        let Some(record) = broker.record_get(T::BUCKET, &key).await? else { return Ok(()) };
        match broker.record_delete(T::BUCKET, &key, record.revision).await {
            Err(BrokerError::Conflict) => {}
            ended => return Ok(ended?),
        }
    }
    Err(BrokerError::Conflict.into())
}
