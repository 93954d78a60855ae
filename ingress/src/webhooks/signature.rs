//! core: how a receiver knows that a webhook is ours: the signature of the Standard Webhooks specification.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shared::config::SigningSecret;

/// The value of `webhook-signature` over `id.timestamp.body`; `timestamp` in seconds since 1970.
pub(super) fn signature(secret: &SigningSecret, id: &str, timestamp: u64, body: &str) -> String {
    let key = Key::new(HMAC_SHA256, secret.expose());
    let tag = sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the specification's reference libraries.
    #[test]
    fn a_signature_is_the_specifications() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
