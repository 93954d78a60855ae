//! What a caller gets when all goes well.

use crate::harness::{CHAT, CHAT_BODY, EMBEDDINGS, KEY, STREAM_BODY, Stand, chunk, meanwhile, soon};
use shared::broker::{Broker, Store};
use shared::domain::{Operation, estimate_tokens};
use shared::entropy::exec_id;
use shared::wire::Encoding;

#[tokio::test]
async fn a_chat_answer_comes_back_as_the_worker_wrote_it() {
    let mut stand = Stand::start().await;
    let call = stand.http.posting(CHAT, CHAT_BODY);
    let taken = stand.take("sandbox-chat").await;
    let envelope = &taken.envelope;
    assert_eq!(taken.body, CHAT_BODY, "the body travels as it came");
    assert_eq!((&*envelope.tenant, envelope.op, envelope.items, envelope.stream), ("one", Operation::Chat, 1, false));
    assert_eq!((envelope.tokens_in, envelope.tokens_out), (estimate_tokens(CHAT_BODY.len()), 256));
    assert!((1..=600_000).contains(&envelope.remaining_ms));
    let (start, end) = envelope.model_at.unwrap();
    assert_eq!(&CHAT_BODY[start as usize..end as usize], "\"sandbox-chat\"");

    let exec = exec_id();
    stand.reply(envelope.id, exec, 0, false, "{\"a\":").await;
    stand.reply(envelope.id, exec, 1, true, "1}").await;
    let answer = soon(call).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "{\"a\":1}"));
    let header = |name: &str| answer.headers[name].to_str().unwrap();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("x-request-id"), envelope.id.to_string());
    assert_eq!(
        [header("x-tidemill-model"), header("x-tidemill-backend"), header("x-tidemill-lane")],
        ["sandbox-chat", "sandbox-0", "interactive"]
    );
    assert_eq!([header("x-tidemill-queue-ms"), header("x-tidemill-batch-size")], ["7", "3"]);
}

#[tokio::test]
async fn a_stream_is_passed_through_as_it_comes() {
    let mut stand = Stand::start().await;
    let call = stand.http.streaming(STREAM_BODY);
    let taken = stand.take("sandbox-chat").await;
    assert!(taken.envelope.stream);
    let exec = exec_id();
    stand.reply(taken.envelope.id, exec, 0, false, "data: 1\n\n").await;
    let response = soon(call).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-tidemill-backend"], "sandbox-0");
    assert!(response.headers().contains_key("x-request-id"));
    let mut body = response.into_body();
    assert_eq!(chunk(&mut body).await.unwrap(), "data: 1\n\n");
    stand.reply(taken.envelope.id, exec, 1, true, "data: [DONE]\n\n").await;
    assert_eq!(chunk(&mut body).await.unwrap(), "data: [DONE]\n\n");
    assert_eq!(chunk(&mut body).await, None);
}

#[tokio::test]
async fn embeddings_travel_as_bare_inputs_with_what_may_share_a_call() {
    let mut stand = Stand::start().await;
    let body = r#"{"model":"sandbox-embedding","input":["a", "b"],"encoding_format":"base64","dimensions":8,"user":"u-7"}"#;
    let call = stand.http.posting(EMBEDDINGS, body);
    let taken = stand.take("sandbox-embedding").await;
    let envelope = &taken.envelope;
    assert_eq!(taken.body, "\"a\", \"b\"");
    assert_eq!((envelope.items, envelope.encoding, &*envelope.params), (2, Encoding::Base64, "\"dimensions\":8"));
    assert_eq!((envelope.bytes as usize, envelope.tokens_out), (taken.body.len(), 0));
    stand.reply(envelope.id, exec_id(), 0, true, "{}").await;
    assert_eq!(soon(call).await.unwrap().status, 200);
}

#[tokio::test]
async fn the_callers_request_id_and_trace_context_are_carried() {
    let mut stand = Stand::start().await;
    let http = stand.http.clone();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("x-api-key", KEY), ("content-type", "application/json"), ("x-request-id", "mine:1"), ("traceparent", trace)];
    let call = meanwhile(async move { http.send("POST", CHAT, &headers, CHAT_BODY).await });
    let taken = stand.take("sandbox-chat").await;
    assert_eq!(taken.envelope.traceparent.as_deref(), Some(trace));
    stand.reply(taken.envelope.id, exec_id(), 0, true, "{}").await;
    assert_eq!(soon(call).await.unwrap().headers["x-request-id"], "mine:1");
}

#[tokio::test]
async fn a_large_body_travels_by_claim_check_and_is_gone_afterwards() {
    let mut stand = Stand::start().await;
    let body = format!(r#"{{"model":"sandbox-chat","messages":[{{"content":"{}"}}]}}"#, "x".repeat(600 * 1024));
    let call = stand.http.posting(CHAT, body.clone());
    let taken = stand.take("sandbox-chat").await;
    let claim = taken.envelope.claim.unwrap();
    assert!(taken.body.is_empty());
    assert_eq!(*claim.key, *format!("ingress-1.{}", taken.envelope.id));
    let blob = stand.broker.blob_get(Store::Claims, &claim.key).await.unwrap().unwrap();
    assert!(blob == body && claim.hash == blake3::hash(&blob).as_bytes());
    assert_eq!(taken.envelope.bytes as usize, body.len());
    stand.reply(taken.envelope.id, exec_id(), 0, true, "{}").await;
    assert_eq!(soon(call).await.unwrap().status, 200);
    while stand.broker.blob_get(Store::Claims, &claim.key).await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn callers_at_once_share_frames_and_each_gets_their_own_answer() {
    let mut stand = Stand::start().await;
    let text = |n: usize| format!(r#"{{"model":"sandbox-embedding","input":"text {n}"}}"#);
    let calls: Vec<_> = (0..100).map(|n| stand.http.posting(EMBEDDINGS, text(n))).collect();
    for _ in 0..calls.len() {
        let taken = stand.take("sandbox-embedding").await;
        stand.reply(taken.envelope.id, exec_id(), 0, true, taken.body).await;
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(soon(call).await.unwrap().body, format!("\"text {n}\""));
    }
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let stand = Stand::start().await;
    let key = [("authorization", "Bearer sk-test-1")];
    let list = stand.http.send("GET", "/v1/models", &key, "").await;
    let list: serde_json::Value = serde_json::from_str(&list.body).unwrap();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][1]["id"], "sandbox-embedding");
    let one = stand.http.send("GET", "/v1/models/sandbox-chat", &key, "").await;
    let one: serde_json::Value = serde_json::from_str(&one.body).unwrap();
    assert_eq!((&one["object"], &one["owned_by"]), (&"model".into(), &"tidemill".into()));
    assert_eq!(stand.http.send("GET", "/v1/models/org/none", &key, "").await.code(), "model_not_found");
    assert_eq!(stand.http.send("GET", "/v1/models", &[], "").await.code(), "missing_api_key");
}
