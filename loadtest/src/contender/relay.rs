//! edge: the relays as contenders: what no gateway on this machine, or on this road, can be faster than.

use super::{ContenderError, Running, Stage, own_folder};
use crate::child::Child;
use crate::client::Client;
use crate::nats::NatsServer;
use std::process::Command;
use std::time::Duration;

/// The road that is relayed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    Straight,
    JetStream,
}

const START_TIMEOUT: Duration = Duration::from_secs(30);

impl Relay {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Straight => "relay",
            Self::JetStream => "relay-jetstream",
        }
    }
}

/// It is this program.
pub(super) async fn start(relay: Relay, stage: &Stage) -> Result<Running, ContenderError> {
    let folder = own_folder(stage, relay.name())?;
    let nats = match relay {
        Relay::Straight => None,
        Relay::JetStream => Some(NatsServer::start(stage.nats_server.clone().ok_or(ContenderError::NoNats)?, &folder).await?),
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["relay", "--backend", &stage.backend]);
    if let Some(nats) = &nats {
        command.args(["--nats", &nats.url()]);
    }
    let mut child = Child::start_tree(relay.name(), command, &folder)?;
    let address = child.printed("listening on ", START_TIMEOUT).await?;
    Ok(Running { name: relay.name(), client: Client::new(&address, ""), children: vec![child], nats })
}
