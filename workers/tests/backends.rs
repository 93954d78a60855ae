//! The `openai` backend against the sandbox over HTTP, and the sandbox in process: the same answers, the same errors.

use bytes::Bytes;
use serde_json::{Value, json};
use shared::config::{self, Fault, FaultRate, SandboxConfig, Secret, Target};
use shared::domain::Operation;
use shared::error::Code;
use shared::wire::Usage;
use std::net::TcpListener;
use std::time::Duration;
use workers::backend::{Answer, Backend, BackendError, Blame, EmbedCall, Embedded, Event, GenerateCall, http};
use workers::sandbox::{Sandbox, Server, serve};

/// Time for what must happen soon; what must not happen at all gets less.
const SOON: Duration = Duration::from_secs(10);
/// A backend's timeout that a test waits for.
const SHORT: Duration = Duration::from_millis(400);

fn backend_of(target: Target, timeout: Duration) -> Backend {
    let config = config::Backend { name: "b".into(), target, concurrency: 1, tokens_max: 1, per_worker: false, timeout };
    Backend::new(&config, &mut http::Clients::default()).unwrap()
}

fn remote(server: &Server, timeout: Duration) -> Backend {
    let url = format!("http://{}/v1", server.addr());
    backend_of(
        Target::OpenAi { url, model: "m".into(), key: Some(Secret::literal("sk-test").unwrap()), tls: None, stream_usage: true },
        timeout,
    )
}

fn started(config: SandboxConfig) -> Server {
    serve(TcpListener::bind("127.0.0.1:0").unwrap(), Sandbox::new(config)).unwrap()
}

/// The same sandbox behind both kinds of backend.
fn both(timeout: Duration) -> (Server, [Backend; 2]) {
    let config = SandboxConfig::default();
    let server = started(config.clone());
    let backends = [remote(&server, timeout), backend_of(Target::Sandbox(config), timeout)];
    (server, backends)
}

async fn embed(backend: &Backend, inputs: &[&str], params: &str) -> Result<Embedded, BackendError> {
    let inputs: Vec<_> = inputs.iter().map(|text| Bytes::from(Value::from(*text).to_string())).collect();
    let count = u32::try_from(inputs.len()).unwrap();
    backend
        .embed(EmbedCall { inputs: &inputs, count, params, traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") })
        .await
}

fn chat(prompt: &str, stream: bool) -> GenerateCall {
    let body = json!({
        "model": "m", "messages": [{ "role": "user", "content": prompt }], "stream": stream, "stream_options": { "include_usage": true },
    });
    GenerateCall { op: Operation::Chat, body: body.to_string().into(), model_at: None, stream, traceparent: None }
}

fn response(prompt: &str, stream: bool) -> GenerateCall {
    let body = json!({ "model": "m", "input": prompt, "stream": stream });
    GenerateCall { op: Operation::Responses, body: body.to_string().into(), model_at: None, stream, traceparent: None }
}

async fn whole(backend: &Backend, call: GenerateCall) -> Result<(Bytes, Option<Usage>), BackendError> {
    match backend.generate(call).await? {
        Answer::Whole { body, usage } => Ok((body, usage)),
        Answer::Stream(_) => panic!("a stream that nobody asked for"),
    }
}

/// All events up to the end or the error.
async fn streamed(backend: &Backend, call: GenerateCall) -> (Vec<Event>, Option<BackendError>) {
    let mut stream = match backend.generate(call).await {
        Ok(Answer::Stream(stream)) => stream,
        Ok(Answer::Whole { .. }) => panic!("a whole answer to a stream"),
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => events.push(event),
            Err(error) => {
                assert!(stream.next().await.is_none(), "nothing follows an error");
                return (events, Some(error));
            }
        }
    }
    (events, None)
}

fn read(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Asks again and again until the sandbox has noticed; fails the test when it does not.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let noticed = tokio::time::timeout(SOON, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(noticed.await.is_ok(), "{what}");
}

#[tokio::test]
async fn embeddings_are_the_same_over_http_and_in_process() {
    let (server, [remote, local]) = both(SOON);
    let texts = ["the quick brown fox", "jumps", "über \"den\" Hund 🦀"];
    let over_http = embed(&remote, &texts, "\"dimensions\":96").await.unwrap();
    assert_eq!(over_http, embed(&local, &texts, "\"dimensions\":96").await.unwrap());
    assert_eq!((over_http.vectors.len(), over_http.vector(0).len(), over_http.prompt_tokens), (3, 96, Some(9)));
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(over_http.vector(index), embed(&remote, &[text], "\"dimensions\":96").await.unwrap().vector(0));
    }
    let stats = server.sandbox().stats();
    assert_eq!((stats.embed_calls, stats.embed_items, stats.max_items, stats.running, stats.aborted), (4, 6, 3, 0, 0));
}

#[tokio::test]
async fn whole_answers_are_the_same_over_http_and_in_process() {
    let (server, [remote, local]) = both(SOON);
    let (body, usage) = whole(&remote, chat("say something", false)).await.unwrap();
    let (here, usage_here) = whole(&local, chat("say something", false)).await.unwrap();
    assert_eq!(usage, Some(Usage { input: 2, output: 16 }));
    assert_eq!(usage, usage_here);
    assert_eq!(read(&body)["choices"], read(&here)["choices"]);
    let text = read(&body)["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let tag = text.rsplit_once("sandbox:").unwrap().1.to_owned();
    assert_eq!(tag, "1c1684de95d46e14", "FNV-1a 64 over `tidemill`, a zero byte and the prompt, computed elsewhere");
    assert_eq!(server.sandbox().stats().seen, [tag]);
}

#[tokio::test]
async fn streams_are_the_same_over_http_and_in_process_and_end_in_done() {
    let (server, [remote, local]) = both(SOON);
    let (events, error) = streamed(&remote, chat("say something", true)).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events.len(), 1 + 16 + 3);
    assert_eq!(events[18].usage, Some(Usage { input: 2, output: 16 }));
    assert!(events[..18].iter().all(|event| event.usage.is_none()));
    assert_eq!(events[19].bytes.as_ref(), b"data: [DONE]\n\n");
    let choices = |events: &[Event]| events[..19].iter().map(|e| read(&e.bytes.slice(6..))["choices"].clone()).collect::<Vec<_>>();
    assert_eq!(choices(&events), choices(&streamed(&local, chat("say something", true)).await.0));
    until("the stream is at its end", || server.sandbox().stats().running == 0).await;
    assert_eq!(server.sandbox().stats().aborted, 0);
}

/// Promise: what a stream used is known, whether or not its caller wants to be told, and who does not want to is not told.
#[tokio::test]
async fn a_streams_usage_is_known_and_told_to_who_asks() {
    let (_server, backends) = both(SOON);
    let unasked = || {
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "say something" }], "stream": true });
        GenerateCall { body: body.to_string().into(), ..chat("", true) }
    };
    for backend in &backends {
        let (events, error) = streamed(backend, unasked()).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(events.len(), 1 + 16 + 2, "and none without a choice");
        assert_eq!(events[18], Event { bytes: "data: [DONE]\n\n".into(), usage: Some(Usage { input: 2, output: 16 }), response: None });
        assert!(events[..18].iter().all(|event| event.usage.is_none() && read(&event.bytes.slice(6..))["choices"][0].is_object()));
    }
    let server = started(SandboxConfig::default());
    let url = format!("http://{}/v1", server.addr());
    let refuses = backend_of(Target::OpenAi { url, model: "m".into(), key: None, tls: None, stream_usage: false }, SOON);
    let (events, _) = streamed(&refuses, unasked()).await;
    assert!(
        events.len() == 1 + 16 + 2 && events.iter().all(|event| event.usage.is_none()),
        "nothing is added for a server that takes none"
    );
}

#[tokio::test]
async fn a_response_is_answered_whole_and_in_named_events_until_it_is_complete() {
    let (_server, backends) = both(SOON);
    for backend in &backends {
        let (body, usage) = whole(backend, response("say something", false)).await.unwrap();
        assert_eq!((read(&body)["object"].as_str(), usage), (Some("response"), Some(Usage { input: 2, output: 16 })));
        let (mut events, error) = streamed(backend, response("say something", true)).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(events.len(), 3 + 16 + 4);
        let last = events.pop().unwrap();
        assert!(last.bytes.starts_with(b"event: response.completed\ndata: {"), "{:?}", last.bytes);
        assert_eq!(last.usage, usage);
        assert!(events.iter().all(|event| event.usage.is_none() && event.bytes.starts_with(b"event: response.")));
    }
}

#[tokio::test]
async fn a_response_that_ends_before_its_last_event_is_an_error() {
    let (_server, backends) = both(SOON);
    for backend in &backends {
        let (events, error) = streamed(backend, response("[[fault:partial_stream]]", true)).await;
        assert_eq!((events.len(), error.unwrap().failure.code), (3, Code::StreamInterrupted));
    }
}

#[tokio::test]
async fn the_backends_model_name_takes_the_place_of_the_public_one() {
    let (_server, [remote, _]) = both(SOON);
    let body = Bytes::from_static(br#"{"model":"public","prompt":"hi"}"#);
    for model_at in [Some((9, 17)), None] {
        let call = GenerateCall { op: Operation::Completions, body: body.clone(), model_at, stream: false, traceparent: None };
        assert_eq!(read(&whole(&remote, call).await.unwrap().0)["model"], "m");
    }
}

#[tokio::test]
async fn each_fault_of_an_array_call_has_its_error_and_blame() {
    let (_server, backends) = both(SHORT);
    let table = [
        ("status=400", Code::BackendRejected, Blame::MaybeItem),
        ("status=401", Code::BackendStatus, Blame::Backend),
        ("status=429", Code::BackendRateLimited, Blame::Backend),
        ("status=500", Code::BackendStatus, Blame::MaybeItem),
        ("status=503", Code::BackendStatus, Blame::Backend),
        ("hang", Code::BackendTimeout, Blame::Backend),
        ("slow_drip", Code::BackendTimeout, Blame::Backend),
        ("reset", Code::BackendUnreachable, Blame::MaybeItem),
        ("malformed_json", Code::BackendMalformed, Blame::MaybeItem),
        ("partial_stream", Code::BackendMalformed, Blame::MaybeItem),
        ("wrong_count", Code::BackendWrongCount, Blame::MaybeItem),
    ];
    for (fault, code, blame) in table {
        for backend in &backends {
            let error = embed(backend, &["fine", &format!("x [[fault:{fault}]]")], "").await.unwrap_err();
            assert_eq!((error.failure.code, error.blame), (code, blame), "{fault}: {error}");
        }
    }
    for backend in &backends {
        assert!(embed(backend, &["fine"], "").await.is_ok(), "the next call is none the worse");
    }
}

#[tokio::test]
async fn each_fault_of_a_whole_answer_has_its_error() {
    let (_server, backends) = both(SHORT);
    let table = [
        ("status=422", Code::BackendRejected),
        ("status=403", Code::BackendStatus),
        ("status=429", Code::BackendRateLimited),
        ("status=502", Code::BackendStatus),
        ("hang", Code::BackendTimeout),
        ("slow_drip", Code::BackendTimeout),
        ("reset", Code::BackendUnreachable),
        ("malformed_json", Code::BackendMalformed),
        ("partial_stream", Code::BackendMalformed),
    ];
    for (fault, code) in table {
        for backend in &backends {
            let error = whole(backend, chat(&format!("[[fault:{fault}]]"), false)).await.unwrap_err();
            assert_eq!(error.failure.code, code, "{fault}: {error}");
        }
    }
}

#[tokio::test]
async fn each_fault_of_a_stream_ends_it_in_an_error_after_what_was_sent() {
    let (_server, backends) = both(SHORT);
    let table = [
        ("status=503", 0, Code::BackendStatus),
        ("hang", 0, Code::BackendTimeout),
        ("slow_drip", 0, Code::BackendTimeout),
        ("reset", 3, Code::StreamInterrupted),
        ("partial_stream", 3, Code::StreamInterrupted),
        ("malformed_json", 3, Code::BackendMalformed),
    ];
    for (fault, before, code) in table {
        for backend in &backends {
            let (events, error) = streamed(backend, chat(&format!("[[fault:{fault}]]"), true)).await;
            let error = error.unwrap();
            assert_eq!((events.len(), error.failure.code), (before, code), "{fault}: {error}");
        }
    }
}

#[tokio::test]
async fn a_rate_limit_says_how_long_to_wait() {
    let (_server, backends) = both(SOON);
    for backend in &backends {
        let error = embed(backend, &["[[fault:status=429]]"], "").await.unwrap_err();
        assert_eq!(error.failure.retry_after_ms, Some(1_000));
    }
}

#[tokio::test]
async fn a_rejection_gives_the_backends_reason() {
    let (_server, backends) = both(SOON);
    for backend in &backends {
        let error = embed(backend, &[""], "").await.unwrap_err();
        assert_eq!((error.failure.code, error.blame), (Code::BackendRejected, Blame::MaybeItem));
        assert!(error.failure.message.contains("`input` is empty"), "{}", error.failure.message);
        assert!(!error.detail.contains("input"), "the log gets no body: {}", error.detail);
    }
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_unreachable() {
    let server = started(SandboxConfig::default());
    let backend = remote(&server, SOON);
    assert!(embed(&backend, &["a"], "").await.is_ok());
    drop(server);
    until_refused(&backend).await;
    let error = embed(&backend, &["a"], "").await.unwrap_err();
    assert_eq!((error.failure.code, error.blame), (Code::BackendUnreachable, Blame::Backend), "{error}");
}

/// The port closes a moment after the server is dropped.
async fn until_refused(backend: &Backend) {
    let refused = async { while !matches!(embed(backend, &["a"], "").await, Err(e) if e.blame == Blame::Backend) {} };
    assert!(tokio::time::timeout(SOON, refused).await.is_ok());
}

#[tokio::test]
async fn a_caller_that_leaves_frees_the_accelerator_within_a_second() {
    let server = started(SandboxConfig { concurrency: 1, ..SandboxConfig::default() });
    let backend = remote(&server, SOON);
    let stats = || server.sandbox().stats();
    for fault in ["[[fault:hang]]", "[[delay:60000]]"] {
        server.sandbox().reset_stats();
        let hung = [fault];
        tokio::select! {
            answer = embed(&backend, &hung, "") => panic!("{answer:?}"),
            () = until("the call arrives", || stats().running == 1) => {}
        }
        // The call in flight was dropped with the branch.
        let next = tokio::time::timeout(Duration::from_secs(1), embed(&backend, &["next"], "")).await;
        assert!(next.expect("the accelerator is free").is_ok());
        assert_eq!((stats().running, stats().aborted), (0, 1), "{fault}");
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_at_the_backend() {
    let config = SandboxConfig { concurrency: 1, token_ms: 20.0, ..SandboxConfig::default() };
    let server = started(config.clone());
    let local = backend_of(Target::Sandbox(config), SOON);
    for backend in [remote(&server, SOON), local] {
        let Answer::Stream(mut stream) = backend.generate(chat("hi", true)).await.unwrap() else { panic!("not a stream") };
        assert!(stream.next().await.unwrap().is_ok());
        drop(stream);
        let next = tokio::time::timeout(Duration::from_secs(1), backend.generate(chat("[[delay:1]]", true))).await;
        assert!(next.expect("the accelerator is free").is_ok());
    }
    until("the stream was cut", || server.sandbox().stats().aborted >= 1).await;
}

#[tokio::test]
async fn a_stream_may_be_asked_again_after_a_wait_was_given_up() {
    let config = SandboxConfig { token_ms: 3.0, ..SandboxConfig::default() };
    let server = started(config.clone());
    for backend in [remote(&server, SOON), backend_of(Target::Sandbox(config), SOON)] {
        let Answer::Stream(mut stream) = backend.generate(chat("hi", true)).await.unwrap() else { panic!("not a stream") };
        let mut events = 0;
        loop {
            match tokio::time::timeout(Duration::from_millis(1), stream.next()).await {
                Ok(Some(event)) => events += usize::from(event.is_ok()),
                Ok(None) => break,
                Err(_gave_up) => {}
            }
        }
        assert_eq!(events, 1 + 16 + 3);
    }
}

#[tokio::test]
async fn a_rate_of_faults_strikes_without_being_asked() {
    let faults = vec![FaultRate { fault: Fault::Status(503), rate: 1.0 }];
    let server = started(SandboxConfig { faults, ..SandboxConfig::default() });
    let error = whole(&remote(&server, SOON), chat("hi", false)).await.unwrap_err();
    assert_eq!(error.failure.code, Code::BackendStatus);
}

#[tokio::test]
async fn the_accelerators_time_grows_with_the_batch() {
    let server = started(SandboxConfig { a_ms: 20.0, b_ms: 10.0, concurrency: 1, ..SandboxConfig::default() });
    let backend = remote(&server, SOON);
    let begin = shared::clock::now();
    embed(&backend, &["a", "b", "c"], "").await.unwrap();
    assert!(shared::clock::now().since(begin) >= Duration::from_millis(50));
}

#[tokio::test]
async fn an_accelerator_that_pads_takes_as_long_as_for_equals() {
    let server = started(SandboxConfig { padded_token_ms: 5.0, concurrency: 1, ..SandboxConfig::default() });
    let backend = remote(&server, SOON);
    let begin = shared::clock::now();
    embed(&backend, &["a", "b", "one two three four"], "").await.unwrap();
    assert!(shared::clock::now().since(begin) >= Duration::from_millis(60));
}

#[tokio::test]
async fn the_servers_other_pages_answer() {
    let server = started(SandboxConfig::default());
    whole(&remote(&server, SOON), chat("hi", false)).await.unwrap();
    let (status, stats) = get(&server, "/stats").await;
    assert_eq!((status, &read(&stats)["chat_calls"]), (200, &json!(1)));
    assert_eq!(read(&get(&server, "/v1/models").await.1)["object"], "list");
    assert_eq!(get(&server, "/livez").await, (200, Bytes::from_static(b"ok")));
    assert_eq!(get(&server, "/elsewhere").await.0, 404);
}

async fn get(server: &Server, path: &str) -> (u16, Bytes) {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.get(format!("http://{}{path}", server.addr()).parse().unwrap()).await.unwrap();
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
}

#[cfg(not(feature = "local"))]
#[test]
fn a_local_model_is_refused_with_the_command_that_builds_one() {
    let target = Target::Local { model_dir: "m".into() };
    let config = config::Backend { name: "mini".into(), target, concurrency: 1, tokens_max: 1, per_worker: true, timeout: SOON };
    let error = Backend::new(&config, &mut http::Clients::default()).err().expect("it is refused").to_string();
    assert!(error.contains("mini") && error.contains("--features local"), "{error}");
}
