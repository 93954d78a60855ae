//! core: every way a request can end badly, in one table: code, HTTP status, OpenAI's error type.

use crate::quota::Standing;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $kind:literal;)*) => {
        /// What went wrong, as the caller may read it. Each code has one HTTP status and one error type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
        }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The `code` of the error body.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The `type` of the error body, in OpenAI's vocabulary.
            pub const fn kind(self) -> &'static str {
                match self { $(Self::$name => $kind,)* }
            }
        }
    };
}

codes! {
    // The caller's request.
    InvalidJson = "invalid_json", 400, "invalid_request_error";
    JsonTooDeep = "json_too_deep", 400, "invalid_request_error";
    InvalidValue = "invalid_value", 400, "invalid_request_error";
    MissingParameter = "missing_required_parameter", 400, "invalid_request_error";
    TooManyInputs = "too_many_inputs", 400, "invalid_request_error";
    InvalidHeader = "invalid_header", 400, "invalid_request_error";
    MultipleCredentials = "multiple_credentials", 400, "invalid_request_error";
    OperationNotSupported = "operation_not_supported", 400, "invalid_request_error";
    MissingApiKey = "missing_api_key", 401, "authentication_error";
    InvalidApiKey = "invalid_api_key", 401, "authentication_error";
    KeyExpired = "key_expired", 401, "authentication_error";
    KeyBlocked = "key_blocked", 401, "authentication_error";
    InvalidToken = "invalid_token", 401, "authentication_error";
    TokenExpired = "token_expired", 401, "authentication_error";
    PermissionDenied = "permission_denied", 403, "permission_error";
    ModelNotFound = "model_not_found", 404, "not_found_error";
    NotFound = "not_found", 404, "not_found_error";
    MethodNotAllowed = "method_not_allowed", 405, "invalid_request_error";
    RequestTimeout = "request_timeout", 408, "invalid_request_error";
    /// Somebody else changed it in the meantime, or it is there already.
    Conflict = "conflict", 409, "invalid_request_error";
    /// It is written in the configuration file.
    ReadOnly = "read_only", 409, "invalid_request_error";
    /// One `Idempotency-Key`, two requests.
    IdempotencyMismatch = "idempotency_mismatch", 422, "invalid_request_error";
    BodyTooLarge = "body_too_large", 413, "invalid_request_error";
    UnsupportedMediaType = "unsupported_media_type", 415, "invalid_request_error";
    // Too much work.
    TooManyInFlight = "too_many_in_flight", 429, "rate_limit_error";
    QueueFull = "queue_full", 429, "rate_limit_error";
    RateLimited = "rate_limit_exceeded", 429, "rate_limit_error";
    /// A budget is used up until its period ends: OpenAI's word for it.
    BudgetExhausted = "insufficient_quota", 429, "insufficient_quota";
    /// The request alone is more than a limit allows, ever.
    OverLimit = "request_over_limit", 429, "rate_limit_error";
    LimitsUnavailable = "limits_unavailable", 503, "service_unavailable_error";
    Overloaded = "overloaded", 503, "service_unavailable_error";
    Draining = "draining", 503, "service_unavailable_error";
    BrokerUnavailable = "broker_unavailable", 503, "service_unavailable_error";
    IssuerUnavailable = "issuer_unavailable", 503, "service_unavailable_error";
    DeadlineExceeded = "deadline_exceeded", 504, "timeout_error";
    // The backend.
    /// The backend called the request itself wrong (400, 413, 422): the caller can mend it.
    BackendRejected = "backend_rejected", 400, "invalid_request_error";
    BackendRateLimited = "backend_rate_limited", 429, "rate_limit_error";
    BackendUnreachable = "backend_unreachable", 502, "server_error";
    /// Every backend of the model fails, and none is tried again soon.
    BackendUnavailable = "backend_unavailable", 503, "service_unavailable_error";
    BackendStatus = "backend_status", 502, "server_error";
    BackendMalformed = "backend_malformed", 502, "server_error";
    BackendWrongCount = "backend_wrong_count", 502, "server_error";
    BackendTimeout = "backend_timeout", 504, "timeout_error";
    // A stream that had begun; travels as an error event.
    StreamInterrupted = "stream_interrupted", 502, "server_error";
    SlowReader = "slow_reader", 503, "server_error";
    // A line of a batch.
    BatchCancelled = "batch_cancelled", 409, "invalid_request_error";
    BatchExpired = "batch_expired", 504, "timeout_error";
    // The road itself.
    Cancelled = "cancelled", 499, "server_error";
    /// It was begun again and again, and took its worker with it each time.
    Poison = "poison", 500, "server_error";
    Lost = "lost", 503, "service_unavailable_error";
    Internal = "internal", 500, "server_error";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request's bad end: a code, a safe sentence that says what to do, and how long to wait before trying again.
///
/// Never holds a prompt, a key, or a backend's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{code}: {message}")]
pub struct Failure {
    pub code: Code,
    pub message: String,
    /// The field of the caller's body that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// Wait this long before another try, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// How the caller's limits stand, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Box<Standing>>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, retry_after_ms: None, standing: None }
    }

    #[must_use]
    pub fn param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    #[must_use]
    pub fn retry_after_ms(mut self, ms: u32) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }
}
