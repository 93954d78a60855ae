//! core: key pairs of an issuer, and tokens signed with them without the library under test.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

pub(super) struct Pair {
    id: String,
    private: Private,
}

enum Private {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Pair {
    pub(super) fn ed(id: &str) -> Self {
        Self { id: id.into(), private: Private::Ed(Ed25519KeyPair::generate().unwrap()) }
    }

    pub(super) fn ec(id: &str) -> Self {
        Self { id: id.into(), private: Private::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()) }
    }

    pub(super) fn rsa(id: &str) -> Self {
        Self { id: id.into(), private: Private::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    /// As it stands in the issuer's JWK set.
    pub(super) fn public(&self) -> Value {
        let mut jwk = match &self.private {
            Private::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key()) }),
            Private::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y) })
            }
            Private::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                json!({ "kty": "RSA", "n": BASE64.encode(n.big_endian_without_leading_zero()), "e": BASE64.encode(e.big_endian_without_leading_zero()) })
            }
        };
        jwk["kid"] = self.id.clone().into();
        jwk
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let name = match &self.private {
            Private::Ed(_) => "EdDSA",
            Private::Ec(_) => "ES256",
            Private::Rsa(_) => "RS256",
        };
        self.sign_as(&json!({ "alg": name, "kid": self.id }), claims)
    }

    /// With any header.
    pub(super) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let random = SystemRandom::new();
        let signature = match &self.private {
            Private::Ed(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Private::Ec(pair) => pair.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{message}.{}", BASE64.encode(signature))
    }
}

/// A token signed with a secret: what a forger makes of a public key.
pub(super) fn hs256(secret: &[u8], key_id: &str, claims: &Value) -> String {
    let message = unsigned(&json!({ "alg": "HS256", "kid": key_id }), claims);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature))
}

/// A token's first two parts.
pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| BASE64.encode(part.to_string())).join(".")
}
