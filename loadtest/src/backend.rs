//! edge: the model server of the measurements: an OpenAI-compatible mock, as cheap as can be, since it shares the machine.
//!
//! Chat costs no time, streamed or not, but for one model whose streams take theirs. Embeddings wait for an accelerator that takes one call at a time. Every answer can
//! be told from any other prompt's.

use crate::backend::accelerator::{Accelerator, Busy, Cost};
use crate::backend::drip::Drip;
use crate::backend::request::{Chat, Embeddings};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

pub(crate) mod accelerator;
pub mod answer;
mod drip;
mod request;
pub mod vector;

pub(crate) use request::padded_tokens;

/// The names by which its models are asked for.
pub const CHAT: &str = "chat";
/// Chat whose streams take their time: seven events, one each [`SLOW_GAP`].
pub const SLOW_CHAT: &str = "slow-chat";
pub const SLOW_GAP: Duration = Duration::from_millis(200);
/// Embeddings that cost by their number.
pub const ACCELERATOR: &str = "accelerator";
/// Embeddings that cost by padded tokens: the longest of a call times their number.
pub const PADDED: &str = "padded";

/// The costs of its embedding models, in milliseconds.
#[derive(Clone, Copy, Debug, clap::Args, Serialize)]
pub struct Costs {
    /// Of each call of `accelerator`.
    #[arg(long, default_value_t = 5.0)]
    pub a_ms: f64,
    /// Of each of its inputs.
    #[arg(long, default_value_t = 0.15)]
    pub b_ms: f64,
    // By default as all-MiniLM-L6-v2 was measured on two CPU cores: 178 texts/s one by one, 233 well sorted, 45 in naive batches of 32.
    /// Of each call of `padded`.
    #[arg(long, default_value_t = 2.0)]
    pub padded_a_ms: f64,
    /// Of each padded token.
    #[arg(long, default_value_t = 0.1)]
    pub padded_b_ms: f64,
}

struct Backend {
    by_number: Accelerator,
    by_padded_tokens: Accelerator,
}

type Answer = Response<Either<Full<Bytes>, Drip>>;

/// The largest body read: far above any scenario's.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Default for Costs {
    fn default() -> Self {
        Self { a_ms: 5.0, b_ms: 0.15, padded_a_ms: 2.0, padded_b_ms: 0.1 }
    }
}

impl Costs {
    /// As a command line takes them.
    pub fn arguments(&self) -> [String; 4] {
        let Self { a_ms, b_ms, padded_a_ms, padded_b_ms } = self;
        [format!("--a-ms={a_ms}"), format!("--b-ms={b_ms}"), format!("--padded-a-ms={padded_a_ms}"), format!("--padded-b-ms={padded_b_ms}")]
    }

    pub const fn by_number(&self) -> Cost {
        Cost { call_ms: self.a_ms, unit_ms: self.b_ms }
    }

    pub const fn by_padded_tokens(&self) -> Cost {
        Cost { call_ms: self.padded_a_ms, unit_ms: self.padded_b_ms }
    }
}

/// Serves on the listener until dropped.
pub async fn serve(listener: TcpListener, costs: Costs) {
    let by_number = Accelerator::start(costs.by_number());
    let backend = Arc::new(Backend { by_number, by_padded_tokens: Accelerator::start(costs.by_padded_tokens()) });
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // A connection that cannot be accepted is its caller's trouble; those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(connection(stream, Arc::clone(&backend)));
        }
    }
}

async fn connection(stream: TcpStream, backend: Arc<Backend>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let backend = Arc::clone(&backend);
        async move { Ok::<_, Infallible>(backend.answer(request).await) }
    });
    // A client that leaves is no error of ours.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Backend {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if request.method() != Method::POST {
            return json(StatusCode::OK, answer::models());
        }
        let is_chat = request.uri().path().ends_with("/chat/completions");
        let Ok(body) = http_body_util::Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
            return refused(StatusCode::PAYLOAD_TOO_LARGE, "the body broke off or is too large");
        };
        if is_chat { chat(&body.to_bytes()) } else { self.embed(&body.to_bytes()).await }
    }

    async fn embed(&self, body: &[u8]) -> Answer {
        let Ok(request) = serde_json::from_slice::<Embeddings<'_>>(body) else {
            return refused(StatusCode::BAD_REQUEST, "not a request for embeddings");
        };
        let worked = match request.model.as_ref() {
            PADDED => self.by_padded_tokens.work(request.padded_tokens()).await,
            _ => self.by_number.work(request.inputs().len()).await,
        };
        match worked {
            Ok(()) => json(StatusCode::OK, answer::embeddings(&request)),
            Err(Busy) => refused(StatusCode::SERVICE_UNAVAILABLE, "too many calls wait for the accelerator"),
        }
    }
}

fn chat(body: &[u8]) -> Answer {
    let Ok(request) = serde_json::from_slice::<Chat<'_>>(body) else {
        return refused(StatusCode::BAD_REQUEST, "not a request for a chat");
    };
    match (request.stream, request.is_slow()) {
        (false, _) => json(StatusCode::OK, answer::chat(&request)),
        (true, false) => answered(StatusCode::OK, EVENTS, whole(answer::stream(&request).concat())),
        (true, true) => {
            let events = answer::stream(&request).into_iter().map(Bytes::from);
            answered(StatusCode::OK, EVENTS, Either::Right(Drip::new(events, SLOW_GAP)))
        }
    }
}

const EVENTS: &str = "text/event-stream";

fn json(status: StatusCode, body: String) -> Answer {
    answered(status, "application/json", whole(body))
}

fn refused(status: StatusCode, message: &str) -> Answer {
    json(status, format!(r#"{{"error":{{"message":"{message}","type":"invalid_request_error","param":null,"code":"mock"}}}}"#))
}

fn whole(body: String) -> Either<Full<Bytes>, Drip> {
    Either::Left(Full::new(Bytes::from(body)))
}

fn answered(status: StatusCode, content_type: &'static str, body: Either<Full<Bytes>, Drip>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::load::{self, Plan, Until};
    use crate::work::{Check, Mode, Work};

    async fn started() -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), "");
        tokio::task::spawn_local(serve(listener, Costs { a_ms: 0.1, b_ms: 0.0, padded_a_ms: 0.1, padded_b_ms: 0.0 }));
        client
    }

    #[tokio::test]
    async fn every_answer_belongs_to_its_prompt() {
        let texts: std::sync::Arc<[String]> = (0..8).map(|i| format!("text \"{i}\"")).collect();
        let vectors: std::sync::Arc<[String]> = texts.iter().map(|text| vector::base64(text)).collect();
        let works = [
            (Mode::Chat, CHAT, Check::Tag(answer::HASH_KEY.into())),
            (Mode::Stream, CHAT, Check::Tag(answer::HASH_KEY.into())),
            (Mode::Embed, ACCELERATOR, Check::Contains(vectors.clone())),
            (Mode::Embed, PADDED, Check::Contains(vectors)),
        ];
        let works = works.map(|(mode, model, check)| Work { mode, model: model.into(), inputs: 1, texts: texts.clone(), check });
        tokio::task::LocalSet::new()
            .run_until(async {
                let client = started().await;
                let outcome = load::run_mix(&client, works.into(), Plan::closed(4, Until::Requests(200))).await;
                assert_eq!((outcome.summary().answered, outcome.failures.len()), (200, 0), "{:?}", outcome.failures);
            })
            .await;
    }

    #[tokio::test]
    async fn a_slow_stream_is_whole_in_the_end() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let work = Work {
                    mode: Mode::Stream,
                    model: SLOW_CHAT.into(),
                    inputs: 1,
                    texts: vec!["a".to_owned()].into(),
                    check: Check::Tag(answer::HASH_KEY.into()),
                };
                let outcome = load::run(&started().await, &work, Plan::closed(2, Until::Requests(2))).await;
                assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
                assert!(outcome.elapsed >= SLOW_GAP * 6);
            })
            .await;
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let client = started().await;
                assert_eq!(client.post("/v1/chat/completions", "{}").await.unwrap().status, 400);
                assert_eq!(client.get("/v1/models").await.unwrap().json()["data"][0]["id"], CHAT);
            })
            .await;
    }
}
