//! edge: unqueued messages over core NATS.

use super::fault::Fault;
use super::link::{Link, bounded, repeat};
use crate::broker::{Address, BrokerError, Inbox};
use async_nats::{Subject, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

fn subject(address: &Address) -> Subject {
    match address {
        Address::Ingress(id) => format!("t.i.{id}").into(),
        Address::Scheduler(id) => format!("t.s.{id}").into(),
        Address::Worker(id) => format!("t.w.{id}").into(),
        Address::Heartbeats => Subject::from_static("t.hb"),
        Address::Cancels => Subject::from_static("t.cancel"),
    }
}

pub(super) async fn post(link: &Link, to: &Address, frame: Bytes) -> Result<(), BrokerError> {
    bounded(async { Ok(link.client().publish(subject(to), frame).await?) }).await
}

/// Subscribes, and returns when the server has heard of it. After a reconnect the client subscribes again by itself.
pub(super) async fn listen(link: &Link, at: &Address) -> Result<NatsInbox, BrokerError> {
    bounded(async {
        let subscription = link.client().subscribe(subject(at)).await.map_err(|error| Fault::Unknown(error.to_string()))?;
        repeat(Fault::may_pass, || link.round_trip()).await?;
        Ok(NatsInbox { subscription })
    })
    .await
}

pub(super) struct NatsInbox {
    subscription: Subscriber,
}

#[async_trait]
impl Inbox for NatsInbox {
    async fn next(&mut self) -> Option<Bytes> {
        self.subscription.next().await.map(|message| message.payload)
    }
}
