//! What a caller gets for a request that is wrong.

use crate::harness::{CHAT, CHAT_BODY, EMBEDDINGS, STREAM_BODY, Stand, chunk, soon};
use shared::entropy::exec_id;
use shared::error::{Code, Failure};

const KEY: (&str, &str) = ("authorization", "Bearer sk-test-1");
const WRONG_KEY: (&str, &str) = ("authorization", "Bearer sk-wrong");
const TEXT: (&str, &str) = ("content-type", "text/plain");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Method, path, headers, body; status and code of the answer.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str, u16, &'static str);

#[tokio::test]
async fn each_bad_request_has_its_status_and_code() {
    let stand = Stand::start().await;
    let cases: [Case; 13] = [
        ("POST", CHAT, &[JSON], CHAT_BODY, 401, "missing_api_key"),
        ("POST", CHAT, &[JSON, WRONG_KEY], CHAT_BODY, 401, "invalid_api_key"),
        ("POST", CHAT, &[JSON, KEY, ("x-api-key", "sk-test-1")], CHAT_BODY, 400, "multiple_credentials"),
        ("POST", CHAT, &[TEXT, KEY], CHAT_BODY, 415, "unsupported_media_type"),
        ("POST", CHAT, &[JSON, KEY, ("x-request-timeout-ms", "soon")], CHAT_BODY, 400, "invalid_header"),
        ("POST", CHAT, &[JSON, KEY], "{\"model\":", 400, "invalid_json"),
        ("POST", CHAT, &[JSON, KEY], "", 400, "invalid_json"),
        ("POST", CHAT, &[JSON, KEY], r#"{"model":"none","messages":[{}]}"#, 404, "model_not_found"),
        ("POST", CHAT, &[JSON, KEY], r#"{"model":"sandbox-embedding","messages":[{}]}"#, 400, "operation_not_supported"),
        ("POST", EMBEDDINGS, &[JSON, KEY], r#"{"model":"sandbox-chat","input":"a"}"#, 400, "operation_not_supported"),
        ("POST", "/v1/nothing", &[JSON, KEY], CHAT_BODY, 404, "not_found"),
        ("GET", CHAT, &[KEY], "", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", &[KEY], "", 405, "method_not_allowed"),
    ];
    for (method, path, headers, body, status, code) in cases {
        let answer = stand.http.send(method, path, headers, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{method} {path} {body}");
        assert!(answer.headers["x-request-id"].to_str().unwrap().starts_with("req_"), "{code}");
        assert_eq!(answer.headers.get("allow").is_some(), status == 405, "{code}");
        assert_eq!(answer.headers["x-should-retry"], "false", "{code}");
    }
}

#[tokio::test]
async fn a_workers_failure_has_its_own_status() {
    let mut stand = Stand::start().await;
    for (body, code) in [(CHAT_BODY, Code::BackendTimeout), (STREAM_BODY, Code::BackendRateLimited)] {
        let call = stand.http.posting(CHAT, body);
        let id = stand.take("sandbox-chat").await.envelope.id;
        stand.fail(id, Some(exec_id()), 0, Failure::new(code, "it did not work").retry_after_ms(1_500)).await;
        let answer = soon(call).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (code.status(), code.as_str()));
        assert_eq!((&answer.headers["retry-after"], &answer.headers["retry-after-ms"]), (&"2".parse().unwrap(), &"1500".parse().unwrap()));
    }
}

#[tokio::test]
async fn a_schedulers_verdict_is_heard() {
    let mut stand = Stand::start().await;
    let call = stand.http.posting(CHAT, CHAT_BODY);
    let id = stand.take("sandbox-chat").await.envelope.id;
    stand.fail(id, None, 0, Failure::new(Code::DeadlineExceeded, "it waited too long")).await;
    assert_eq!(soon(call).await.unwrap().status, 504);
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_event_of_its_own() {
    let mut stand = Stand::start().await;
    let call = stand.http.streaming(STREAM_BODY);
    let id = stand.take("sandbox-chat").await.envelope.id;
    let exec = exec_id();
    stand.reply(id, exec, 0, false, "data: {\"half\":").await;
    let mut body = soon(call).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap(), "data: {\"half\":");
    stand.fail(id, Some(exec), 1, Failure::new(Code::BackendMalformed, "the backend broke off")).await;
    let event = chunk(&mut body).await.unwrap();
    assert!(event.starts_with("\n\ndata: {\"error\":{") && event.contains("backend_malformed") && event.ends_with("}}\n\n"), "{event}");
    assert_eq!(chunk(&mut body).await, None, "no [DONE] follows");
}
