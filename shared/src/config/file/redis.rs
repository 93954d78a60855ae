//! edge: the file's section `redis`.

use super::Reader;
use crate::config::{ClientTls, ConfigError, Redis};
use serde::Deserialize;
use serde_saphyr::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRedis {
    url: String,
    timeout_ms: Option<u64>,
    grace_ms: Option<u64>,
    tls: Option<Spanned<ClientTls>>,
}

impl Reader<'_> {
    pub(super) fn redis(&self, file: &Spanned<FileRedis>) -> Result<Redis, ConfigError> {
        let FileRedis { url, timeout_ms, grace_ms, tls } = &file.value;
        let mut redis = Redis::at(url);
        redis.timeout_ms = timeout_ms.unwrap_or(redis.timeout_ms);
        redis.grace_ms = grace_ms.unwrap_or(redis.grace_ms);
        redis.tls = self.client_tls_by_host("redis.tls", tls.as_ref())?;
        redis.check().map_err(|what| self.at(file, format!("redis.{what}")))?;
        Ok(redis)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{ClientTls, Redis, parse};

    #[test]
    fn a_redis_is_read_with_its_defaults() {
        let redis = parse("redis: { url: 'rediss://h', tls: { ca: c.pem } }\n", "f").unwrap().redis.unwrap();
        assert_eq!(redis, Redis { tls: Some(ClientTls { ca: Some("c.pem".into()), ..ClientTls::default() }), ..Redis::at("rediss://h") });
        assert_eq!((redis.timeout_ms, redis.grace_ms), (250, 60_000));
        assert_eq!(parse("redis: { url: redis://h, grace_ms: 0 }\n", "f").unwrap().redis.unwrap().grace_ms, 0);
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_line_and_key() {
        for (yaml, line, key) in [
            ("redis:\n  url: http://h\n", 2, "redis.url"),
            ("redis:\n  url: redis://h\n  timeout_ms: 1\n", 2, "redis.timeout_ms"),
            ("redis:\n  url: redis://h\n  grace_ms: 3600001\n", 2, "redis.grace_ms"),
            ("redis:\n  url: redis://h\n  tls: { ca: c }\n", 2, "redis.tls"),
            ("redis:\n  url: rediss://h\n  tls: { cert: c }\n", 3, "redis.tls.key"),
            ("redis:\n  url: rediss://h\n  tls: { server_name: n }\n", 3, "redis.tls.server_name"),
        ] {
            let error = parse(yaml, "tidemill.yaml").unwrap_err();
            assert_eq!(error.line, line, "{yaml}\n{error}");
            assert!(error.what.contains(key), "{error}");
        }
    }
}
