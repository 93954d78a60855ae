//! edge: checks what the file says about TLS.

use super::Reader;
use crate::config::{ClientTls, ConfigError, ServerTls};
use serde_saphyr::Spanned;

impl Reader<'_> {
    pub(super) fn server_tls(&self, file: Option<Spanned<ServerTls>>) -> Result<Option<ServerTls>, ConfigError> {
        let Some(file) = file else { return Ok(None) };
        if file.value.client_auth.is_some() && file.value.client_ca.is_none() {
            return Err(self.at(&file, "tls.client_auth: needs tls.client_ca, the file of who may sign client certificates"));
        }
        Ok(Some(file.value))
    }

    /// `of` is the section's key, such as `nats.tls`.
    pub(super) fn client_tls(&self, of: &str, file: Option<&Spanned<ClientTls>>) -> Result<Option<ClientTls>, ConfigError> {
        let Some(file) = file else { return Ok(None) };
        match (&file.value.cert, &file.value.key) {
            (Some(_), None) => Err(self.at(file, format!("{of}.key: needed beside {of}.cert"))),
            (None, Some(_)) => Err(self.at(file, format!("{of}.cert: needed beside {of}.key"))),
            _ => Ok(Some(file.value.clone())),
        }
    }

    /// For a server whose certificate is always checked against the host of its address: `server_name` is refused.
    pub(super) fn client_tls_by_host(&self, of: &str, file: Option<&Spanned<ClientTls>>) -> Result<Option<ClientTls>, ConfigError> {
        match file {
            Some(named) if named.value.server_name.is_some() => {
                Err(self.at(named, format!("{of}.server_name: only for backends; here the host of the url must stand in the certificate")))
            }
            file => self.client_tls(of, file),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{ClientAuth, parse};
    use std::path::Path;

    #[test]
    fn a_listeners_certificates_are_read() {
        let config = parse("tls: { cert: c.pem, key: k.pem, client_ca: ca.pem, client_auth: optional }\n", "f").unwrap();
        let tls = config.tls.unwrap();
        assert_eq!((tls.cert.as_path(), tls.key.as_path()), (Path::new("c.pem"), Path::new("k.pem")));
        assert_eq!((tls.client_ca.as_deref(), tls.client_auth), (Some(Path::new("ca.pem")), Some(ClientAuth::Optional)));
        assert!(parse("", "f").unwrap().tls.is_none(), "plain HTTP unless said");
    }

    #[test]
    fn half_of_a_section_is_refused_with_its_line_and_key() {
        let backend = "models:\n- name: m\n  kind: array\n  backends:\n  - kind: openai\n    url: https://h/v1\n    tls:\n      cert: c\n";
        let plain = "models:\n- name: m\n  kind: array\n  backends:\n  - kind: openai\n    url: http://h/v1\n    tls: { ca: c }\n";
        let sandbox = "models:\n- name: m\n  kind: array\n  backends:\n  - kind: sandbox\n    tls: { ca: c }\n";
        for (yaml, line, key) in [
            ("tls:\n  cert: c\n", 2, "key"),
            ("listen: 127.0.0.1:1\ntls: { cert: c, key: k, client_auth: required }\n", 2, "tls.client_auth"),
            ("tls: { cert: c, key: k, client_ca: a, client_auth: maybe }\n", 1, "client_auth"),
            ("tls: { cert: c, key: k, ca: a }\n", 1, "ca"),
            ("nats:\n  url: nats://h\n  tls: { key: k }\n", 3, "nats.tls.cert"),
            ("nats:\n  url: nats://h\n  tls: { server_name: n }\n", 3, "nats.tls.server_name"),
            (backend, 8, "backends[].tls.key"),
            (plain, 7, "backends[].tls"),
            (sandbox, 6, "backends[].tls"),
        ] {
            let error = parse(yaml, "tidemill.yaml").unwrap_err();
            assert_eq!(error.line, line, "{yaml}\n{error}");
            assert!(error.what.contains(key), "{error}");
        }
    }
}
