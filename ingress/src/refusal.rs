//! edge: a failure as its caller sees it: OpenAI's error body, the headers their SDKs obey, or an event of a stream.

use crate::rate_limit;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use shared::broker::BrokerError;
use shared::domain::Operation;
use shared::error::{Code, Failure};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// OpenAI's error body.
#[derive(Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

/// The error event of a `responses` stream as OpenAI documents it; and `error`, which has their SDKs raise it rather than hand
/// it out as one event more.
#[derive(Serialize)]
struct ErrorEvent<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
    param: Option<&'a str>,
    error: ErrorFields<'a>,
}

impl<'a> ErrorBody<'a> {
    pub(crate) fn of(failure: &'a Failure) -> Self {
        Self { error: fields(failure) }
    }
}

pub(crate) fn response(failure: &Failure) -> Response {
    let code = failure.code;
    let mut response = Response::new(Body::from(json(failure)));
    *response.status_mut() = StatusCode::from_u16(code.status()).expect("the table holds statuses");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(ms) = failure.retry_after_ms {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
    }
    if let Some(standing) = &failure.standing {
        rate_limit::insert(headers, standing);
    }
    if is_final(code) {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if code.status() == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The event that ends a stream which had begun. `[DONE]` does not follow it.
pub(crate) fn event(op: Option<Operation>, failure: &Failure) -> Bytes {
    match op {
        Some(Operation::Responses) => [b"event: error\ndata: ", &typed_json(failure)[..], b"\n\n"].concat().into(),
        _ => [b"data: ", &json(failure)[..], b"\n\n"].concat().into(),
    }
}

/// What a caller hears of a broker that did not take their request.
pub(crate) fn of_broker(error: &BrokerError) -> Failure {
    if *error == BrokerError::Full {
        return Failure::new(Code::QueueFull, "The queue is full: try again later").retry_after_ms(1_000);
    }
    tracing::error!(%error, "the broker did not take a request");
    Failure::new(Code::BrokerUnavailable, "The queue did not take the request: try again").retry_after_ms(1_000)
}

/// Whether the same request would fail again.
fn is_final(code: Code) -> bool {
    match code.status() {
        429 => matches!(code, Code::BudgetExhausted | Code::OverLimit),
        status => matches!(status, 400..500) && !matches!(status, 408 | 409),
    }
}

fn json(failure: &Failure) -> Vec<u8> {
    serde_json::to_vec(&ErrorBody::of(failure)).expect("strings always encode")
}

fn typed_json(failure: &Failure) -> Vec<u8> {
    let error = fields(failure);
    let event = ErrorEvent { r#type: "error", code: error.code, message: error.message, param: error.param, error };
    serde_json::to_vec(&event).expect("strings always encode")
}

fn fields(failure: &Failure) -> ErrorFields<'_> {
    let Failure { code, message, param, .. } = failure;
    ErrorFields { message, r#type: code.kind(), param: param.as_deref(), code: code.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_openais_shape() {
        let failure = Failure::new(Code::InvalidValue, "`n` must be \"small\"").param("n");
        let expected = r#"{"error":{"message":"`n` must be \"small\"","type":"invalid_request_error","param":"n","code":"invalid_value"}}"#;
        assert_eq!(json(&failure), expected.as_bytes());
        assert_eq!(event(Some(Operation::Chat), &failure), format!("data: {expected}\n\n"));
    }

    #[test]
    fn the_error_event_of_a_response_has_a_name_a_type_and_the_error() {
        let event = event(Some(Operation::Responses), &Failure::new(Code::SlowReader, "x"));
        let data = event.strip_prefix(b"event: error\ndata: ").and_then(|rest| rest.strip_suffix(b"\n\n")).unwrap();
        let error = serde_json::json!({ "message": "x", "type": "server_error", "param": null, "code": "slow_reader" });
        let expected = serde_json::json!({ "type": "error", "code": "slow_reader", "message": "x", "param": null, "error": error });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(data).unwrap(), expected);
    }

    #[test]
    fn a_wait_is_given_in_seconds_rounded_up_and_in_milliseconds() {
        let response = response(&Failure::new(Code::QueueFull, "x").retry_after_ms(1_200));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[RETRY_AFTER_MS], "1200");
    }

    #[test]
    fn only_what_would_fail_again_is_not_to_be_retried() {
        for code in [Code::InvalidJson, Code::InvalidApiKey, Code::ModelNotFound, Code::BodyTooLarge, Code::BudgetExhausted] {
            assert_eq!(response(&Failure::new(code, "x")).headers()[SHOULD_RETRY], "false", "{code}");
        }
        for code in [Code::RequestTimeout, Code::QueueFull, Code::RateLimited, Code::Lost, Code::DeadlineExceeded] {
            assert!(!response(&Failure::new(code, "x")).headers().contains_key(SHOULD_RETRY), "{code}");
        }
    }
}
