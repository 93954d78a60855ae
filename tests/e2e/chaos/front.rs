//! edge: where callers find the ingresses: what a load balancer in front of them would do, in a few lines.

use super::ask::{Ask, Got};
use super::load::DEADLINE_MS;
use loadtest::client::{Client, ClientError};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Front {
    ingresses: Vec<Ingress>,
    /// Who cannot be connected to is passed over. Otherwise every caller sees what its own ingress does.
    passes_over: bool,
}

struct Ingress {
    clients: HashMap<&'static str, Client>,
    is_out: AtomicBool,
}

impl Front {
    pub(super) fn new(addresses: &[String], keys: &[&'static str], passes_over: bool) -> Self {
        let client = |base: &str, key: &str| Client::new(base, key).with_header("x-request-timeout-ms", DEADLINE_MS);
        let ingress =
            |base: &String| Ingress { clients: keys.iter().map(|key| (*key, client(base, key))).collect(), is_out: AtomicBool::new(false) };
        Self { ingresses: addresses.iter().map(ingress).collect(), passes_over }
    }

    /// Takes an ingress out before it is asked to end, and in again when it is ready.
    pub(super) fn set_out(&self, ingress: usize, is_out: bool) {
        self.ingresses[ingress].is_out.store(is_out, Ordering::SeqCst);
    }

    /// Whose turn it is.
    pub(super) fn turn(&self, call: u64) -> usize {
        let count = self.ingresses.len();
        let first = usize::try_from(call / 2).expect("a number of calls") % count;
        (first..first + count)
            .map(|place| place % count)
            .find(|place| !self.ingresses[*place].is_out.load(Ordering::SeqCst))
            .unwrap_or(first)
    }

    pub(super) fn client(&self, ingress: usize, key: &str) -> &Client {
        &self.ingresses[ingress % self.ingresses.len()].clients[key]
    }

    /// Asks the ingress whose turn it is; where that cannot be connected to, and that is passed over, the next.
    ///
    /// # Errors
    /// No connection, or a broken one.
    pub(super) async fn send(&self, call: u64, key: &str, ask: &Ask<'_>) -> Result<Got, ClientError> {
        let ingress = self.turn(call);
        match ask.send(self.client(ingress, key)).await {
            Err(ClientError::Connect(error)) if self.passes_over && error.is_connect() => ask.send(self.client(ingress + 1, key)).await,
            answered => answered,
        }
    }
}
