//! loop: tells the broker what became of its deliveries, apart from the engine's loop, so that a slow broker delays
//! acks and never a decision. A lost ack is a redelivery, which the engine answers. In process an ack is a call.

use futures::FutureExt;
use shared::broker::{AckToken, Broker};
use shared::task::{self, Guarded};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Acks that may wait while the broker is away: a full window's worth. Past it they are dropped.
const WAITING_MAX: usize = 16_384;

#[derive(Debug)]
pub(crate) enum Ack {
    Done(AckToken),
    Renew(AckToken),
    /// To be handed out again after so long.
    GiveBack(AckToken, Duration),
    Flush(oneshot::Sender<()>),
}

#[derive(Clone)]
pub(crate) struct Acks(Way);

#[derive(Clone)]
enum Way {
    Call(Arc<dyn Broker>),
    Queue { acks: mpsc::Sender<Ack>, _task: Arc<Guarded> },
}

impl Acks {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        if broker.is_local() {
            return Self(Way::Call(broker));
        }
        let (acks, waiting) = mpsc::channel(WAITING_MAX);
        Self(Way::Queue { acks, _task: Arc::new(task::spawn_guarded("acks", send_all(broker, waiting))) })
    }

    pub(crate) fn send(&self, ack: Ack) {
        match &self.0 {
            Way::Call(broker) => send(broker.as_ref(), ack).now_or_never().expect("a local broker does not wait"),
            Way::Queue { acks, .. } => {
                if acks.try_send(ack).is_err() {
                    tracing::warn!("an ack was dropped: the broker is slow or away; its frame will come again");
                }
            }
        }
    }

    /// Waits until what was sent before has gone to the broker.
    pub(crate) async fn flushed(&self) {
        let Way::Queue { acks, .. } = &self.0 else { return };
        let (done, flushed) = oneshot::channel();
        if acks.send(Ack::Flush(done)).await.is_ok() {
            let _ = flushed.await; // The sender's end means there is nothing left to wait for.
        }
    }
}

async fn send_all(broker: Arc<dyn Broker>, mut waiting: mpsc::Receiver<Ack>) {
    while let Some(ack) = waiting.recv().await {
        send(broker.as_ref(), ack).await;
    }
}

async fn send(broker: &dyn Broker, ack: Ack) {
    let sent = match ack {
        Ack::Done(token) => broker.ack(&token).await,
        Ack::Renew(token) => broker.renew(&token).await,
        Ack::GiveBack(token, delay) => broker.nak(&token, delay).await,
        Ack::Flush(done) => {
            let _ = done.send(()); // Whoever waited may have given up.
            Ok(())
        }
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "an ack was not sent");
    }
}
