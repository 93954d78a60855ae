//! edge: one connection to NATS: opening and checking it, and the few shapes of question that the rest of this edge asks.

use super::fault::{self, Fault, NO_JETSTREAM, Refusal};
use super::version::Version;
use super::{BrokerError, Options};
use crate::config::{ClientTls, without_credentials};
use crate::{clock, entropy, tls};
use async_nats::client::{Client, Request};
use async_nats::connection::State;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{ConnectErrorKind, ConnectOptions, Event, HeaderMap, ServerAddr, Subject};
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::json;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// No call takes longer, with all its repetitions.
pub(super) const CALL_MAX: Duration = Duration::from_secs(5);

/// One question's time for its answer. A server that restarts forgets what it was asked, so asking again soon is cheap.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long the first connection may take: a server that starts beside us needs a moment.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A peer that died without a word is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Messages that may wait for one subscription; past it the client drops the newest.
const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// Where nobody listens: the server itself says so.
const NOBODY: Subject = Subject::from_static("t.nobody");

/// The longest pause between two attempts to reconnect: a server that is back is found within this.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Link {
    client: Client,
    context: Context,
    /// The address without its credentials.
    address: String,
    version: Version,
    cluster_size: usize,
    changes: watch::Receiver<u64>,
}

impl Link {
    /// Connects and checks that the server will do.
    ///
    /// # Errors
    /// `Unavailable` after 10 s without a connection; `Unfit` when the server is too old, refuses us, or has no JetStream.
    pub(super) async fn open(url: &str, tls: Option<&ClientTls>) -> Result<Self, BrokerError> {
        let (ring, changes) = watch::channel(0);
        let client = connect(url, tls, ring).await?;
        let info = client.server_info();
        let link = Self {
            context: jetstream::new(client.clone()),
            client,
            address: without_credentials(url),
            version: Version::check(&info.version)?,
            cluster_size: if info.cluster.is_some() { info.connect_urls.len() } else { 1 },
            changes,
        };
        link.check_jetstream().await?;
        Ok(link)
    }

    async fn check_jetstream(&self) -> Result<(), BrokerError> {
        let asked = repeat(|fault| matches!(fault, Fault::Unknown(_)), || self.api::<IgnoredAny>("INFO".into(), ""));
        match timeout(CALL_MAX, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(Fault::Absent)) => Err(BrokerError::Unfit(NO_JETSTREAM.into())),
            Ok(Err(fault)) => Err(fault.into()),
            Err(_) => Err(BrokerError::Unavailable("JetStream does not answer".into())),
        }
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) const fn context(&self) -> &Context {
        &self.context
    }

    /// Rings when the connection was made again.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// How often a connection was made. What was learnt over an earlier one may no longer hold.
    pub(super) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    pub(super) fn describe(&self) -> String {
        format!("{} ({})", self.address, self.version)
    }

    /// Copies of each stream: what the operator said, else three where there are three servers to hold them.
    pub(super) fn replicas(&self, options: &Options) -> usize {
        options.replicas.unwrap_or(if self.cluster_size >= 3 { 3 } else { 1 })
    }

    /// Asks, and waits a second for the answer.
    pub(super) async fn ask(&self, subject: Subject, headers: HeaderMap, payload: Bytes) -> Result<Bytes, Fault> {
        let plain = Request::new().payload(payload).timeout(Some(ANSWER_MAX));
        let request = if headers.is_empty() { plain } else { plain.headers(headers) };
        Ok(self.client.send_request(subject, request).await?.payload)
    }

    /// Asks the JetStream API. Where nothing is to be said it wants no JSON at all.
    pub(super) async fn api<T: DeserializeOwned>(&self, operation: String, question: impl Into<Bytes>) -> Result<T, Fault> {
        let subject = format!("$JS.API.{operation}").into();
        let answer = self.ask(subject, HeaderMap::new(), question.into()).await?;
        let refused: Refused = read(&answer)?;
        match refused.error {
            Some(refusal) => Err(refusal.into()),
            None => read(&answer),
        }
    }

    /// The last message at a subject, read from the stream's leader.
    pub(super) async fn last(&self, stream: &str, subject: &str) -> Result<Option<StreamMessage>, Fault> {
        let unknown = |error: &dyn std::error::Error| Fault::Unknown(error.to_string());
        let handle = self.context.get_stream_no_info(stream).await.map_err(|error| unknown(&error))?;
        match handle.get_last_raw_message_by_subject(subject).await.map_err(|error| (error.kind(), error)) {
            Ok(message) => Ok(Some(message)),
            Err((LastRawMessageErrorKind::NoMessageFound, _)) => Ok(None),
            Err((LastRawMessageErrorKind::JetStream(refusal), _)) if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Err(Fault::Absent)
            }
            Err((_, error)) => Err(unknown(&error)),
        }
    }

    /// Whether a stream has a message at this position.
    pub(super) async fn stores(&self, stream: &str, sequence: u64) -> Result<bool, Fault> {
        let asked = self.api::<IgnoredAny>(format!("STREAM.MSG.GET.{stream}"), json!({ "seq": sequence }).to_string()).await;
        match asked {
            Ok(_) => Ok(true),
            Err(Fault::Nothing) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// The position of the last message that a stream ever had.
    pub(super) async fn last_sequence(&self, stream: &str) -> Result<u64, Fault> {
        Ok(self.api::<Info>(format!("STREAM.INFO.{stream}"), "").await?.state.last_sequence)
    }

    /// Removes a stream's messages at these subjects; with `below`, those of a lower sequence.
    pub(super) async fn purge(&self, stream: &str, subjects: &str, below: Option<u64>) -> Result<(), Fault> {
        let question = match below {
            None => json!({ "filter": subjects }),
            Some(sequence) => json!({ "filter": subjects, "seq": sequence }),
        };
        let question = question.to_string();
        self.api::<IgnoredAny>(format!("STREAM.PURGE.{stream}"), question).await.map(drop)
    }

    /// Stores a message in the stream that listens at `subject`.
    pub(super) async fn store(&self, subject: Subject, headers: HeaderMap, payload: Bytes) -> Result<PubAck, Fault> {
        let ack: PubAck = read(&self.ask(subject, headers, payload).await?)?;
        match ack.error {
            Some(refusal) => Err(refusal.into()),
            None => Ok(ack),
        }
    }

    /// Waits until the server has read everything sent before: it answers in order.
    pub(super) async fn round_trip(&self) -> Result<(), Fault> {
        match self.ask(NOBODY, HeaderMap::new(), Bytes::new()).await {
            Ok(_) | Err(Fault::Absent) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

/// The stream's answer to a publish.
#[derive(Debug, Deserialize)]
pub(super) struct PubAck {
    error: Option<Refusal>,
    #[serde(default, rename = "seq")]
    pub(super) sequence: u64,
    #[serde(default)]
    pub(super) duplicate: bool,
}

#[derive(Deserialize)]
struct Refused {
    error: Option<Refusal>,
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(answer)
        .map_err(|error| Fault::Final(BrokerError::Unfit(format!("the server's answer is not understood: {error}"))))
}

/// Repeats `attempt` with growing, jittered pauses for as long as `again` says so. The caller bounds the whole.
pub(super) async fn repeat<T, F>(again: fn(&Fault) -> bool, attempt: impl FnMut() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_millis(250))
        .without_max_times()
        .with_jitter();
    attempt.retry(pauses).when(again).await
}

/// Bounds a call.
pub(super) async fn bounded<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, BrokerError> {
    match timeout(CALL_MAX, call).await {
        Ok(answer) => answer.map_err(BrokerError::from),
        Err(_) => Err(BrokerError::Unavailable(format!("no answer within {} s", CALL_MAX.as_secs()))),
    }
}

async fn connect(url: &str, tls: Option<&ClientTls>, ring: watch::Sender<u64>) -> Result<Client, BrokerError> {
    let servers: Vec<ServerAddr> = url
        .split(',')
        .map(|one| one.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|_| BrokerError::Unfit(format!("{} is not a NATS address: write nats://HOST:PORT", without_credentials(url))))?;
    let options = secured(options(ring), tls)?;
    let deadline = clock::now() + CONNECT_MAX;
    loop {
        let error = match options.clone().connect(servers.clone()).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let sentence = format!("{}: {error}", without_credentials(url));
        if matches!(error.kind(), ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Tls)
            || fault::is_tls(&error)
        {
            return Err(BrokerError::Unfit(sentence));
        }
        if clock::now() >= deadline {
            return Err(BrokerError::Unavailable(sentence));
        }
        tokio::time::sleep(reconnect_delay(2)).await;
    }
}

fn options(ring: watch::Sender<u64>) -> ConnectOptions {
    ConnectOptions::new()
        .name("tidemill")
        .ping_interval(PING_INTERVAL)
        .connection_timeout(Duration::from_secs(2))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            report(&event);
            if matches!(event, Event::Connected) {
                ring.send_modify(|connects| *connects += 1);
            }
            std::future::ready(())
        })
}

/// With `tls` a server that does not speak it is refused, whatever its address says.
fn secured(options: ConnectOptions, tls: Option<&ClientTls>) -> Result<ConnectOptions, BrokerError> {
    let Some(files) = tls else { return Ok(options) };
    let config = tls::client(Some(files)).map_err(|error| BrokerError::Unfit(format!("nats.tls: {error}")))?;
    Ok(options.tls_client_config(config).require_tls(true))
}

fn report(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("disconnected from NATS: reconnecting until it is back"),
        Event::SlowConsumer(_) => tracing::warn!("a reader fell behind: the newest message of its subscription was dropped"),
        other => tracing::info!(event = %other, "NATS"),
    }
}

/// For ever, from 20 ms to a second, with half of it drawn: a fleet must not come back all at once.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(6);
    let delay = Duration::from_millis(20).saturating_mul(1 << doublings).min(RECONNECT_DELAY_MAX);
    #[expect(clippy::cast_precision_loss, reason = "a draw of 24 bits is exact")]
    let drawn = (entropy::draw() >> 40) as f32 / (1_u32 << 24) as f32;
    delay / 2 + (delay / 2).mul_f32(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_below_their_bound() {
        assert!(reconnect_delay(0) <= Duration::from_millis(20));
        let late = reconnect_delay(1_000);
        assert!(late >= RECONNECT_DELAY_MAX / 2 && late <= RECONNECT_DELAY_MAX);
    }

    #[tokio::test]
    async fn a_bad_address_is_refused_without_showing_its_password() {
        let Err(BrokerError::Unfit(why)) = Link::open("nats://user:hunter2@[", None).await else { panic!("not refused") };
        assert!(!why.contains("hunter2"), "{why}");
    }
}
