//! edge: a failure as its caller sees it: OpenAI's error body, the headers their SDKs obey, or an event of a stream.

use crate::rate_limit;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use shared::broker::BrokerError;
use shared::error::{Code, Failure};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: &'static str,
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
pub(crate) fn event(failure: &Failure) -> Bytes {
    [b"data: ", &json(failure)[..], b"\n\n"].concat().into()
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
    let Failure { code, message, param, .. } = failure;
    let error = ErrorFields { message, r#type: code.kind(), param: param.as_deref(), code: code.as_str() };
    serde_json::to_vec(&ErrorBody { error }).expect("strings always encode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_openais_shape() {
        let failure = Failure::new(Code::InvalidValue, "`n` must be \"small\"").param("n");
        let expected = r#"{"error":{"message":"`n` must be \"small\"","type":"invalid_request_error","param":"n","code":"invalid_value"}}"#;
        assert_eq!(json(&failure), expected.as_bytes());
        assert_eq!(event(&failure), format!("data: {expected}\n\n"));
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
