//! edge: the configuration file's shape (YAML), and its conversion into [`Config`] with errors that name file, line and key.

mod batching;
mod identity;
mod issuers;
mod models;
mod redis;
mod tenants;
mod tls;
mod webhooks;

use super::{Admin, ClientTls, Config, Jobs, Limits, Nats, ServerTls, StreamBytes, WebhookPolicy};
use crate::identity::{Role, check_name};
use identity::FilePeppers;
use issuers::FileIssuer;
use models::FileModel;
use redis::FileRedis;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::net::{Ipv4Addr, SocketAddr};
use tenants::FileTenant;

/// Why a configuration is refused: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct ConfigError {
    pub file: String,
    pub line: u64,
    pub what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRoot {
    listen: Option<SocketAddr>,
    tls: Option<Spanned<ServerTls>>,
    admin: Option<Admin>,
    nats: Option<Spanned<FileNats>>,
    redis: Option<Spanned<FileRedis>>,
    #[serde(default)]
    limits: Limits,
    jobs: Option<Spanned<Jobs>>,
    #[serde(default)]
    models: Vec<FileModel>,
    #[serde(default)]
    roles: Vec<Spanned<Role>>,
    #[serde(default)]
    tenants: Vec<FileTenant>,
    #[serde(default)]
    webhooks: WebhookPolicy,
    peppers: Option<Spanned<FilePeppers>>,
    #[serde(default)]
    issuers: Vec<FileIssuer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNats {
    url: String,
    replicas: Option<usize>,
    tls: Option<Spanned<ClientTls>>,
    #[serde(default)]
    max_bytes: StreamBytes,
}

const DEFAULT_PORT: u16 = 8080;
/// A body is held in memory whole, and places in it are told in 32 bits.
const BODY_BYTES_CEILING: usize = 1 << 30;

/// Parses and checks a configuration; `file` names it in errors.
///
/// # Errors
/// Unknown keys, wrong types and values that cannot work, each with its line.
pub fn parse(yaml: &str, file: &str) -> Result<Config, ConfigError> {
    let yaml = if yaml.trim().is_empty() { "{}" } else { yaml };
    let reader = Reader { file, yaml };
    let options = serde_saphyr::options! { with_snippet: false };
    let root: FileRoot = serde_saphyr::from_str_with_options(yaml, options).map_err(|e| reader.syntax(&e))?;
    reader.root(root)
}

struct Reader<'a> {
    file: &'a str,
    yaml: &'a str,
}

impl Reader<'_> {
    fn error(&self, line: u64, what: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.to_owned(), line, what: what.into() }
    }

    fn at<T>(&self, value: &Spanned<T>, what: impl Into<String>) -> ConfigError {
        self.error(value.referenced.line(), what)
    }

    fn syntax(&self, error: &serde_saphyr::Error) -> ConfigError {
        let Some(location) = error.location() else { return self.error(1, error.to_string()) };
        match key_before(self.yaml, location) {
            Some(key) => self.error(location.line(), format!("{key}: {error}")),
            None => self.error(location.line(), error.to_string()),
        }
    }

    fn root(&self, root: FileRoot) -> Result<Config, ConfigError> {
        let mut warnings = Vec::new();
        let tls = self.server_tls(root.tls)?;
        let nats = root.nats.map(|nats| self.nats(nats)).transpose()?;
        let redis = root.redis.map(|redis| self.redis(&redis)).transpose()?;
        let limits = self.limits(root.limits)?;
        let jobs = self.jobs(root.jobs)?;
        let models = self.models(root.models, &mut warnings)?;
        let roles = self.roles(root.roles)?;
        let tenants = self.tenants(root.tenants, &roles, &root.webhooks, &mut warnings)?;
        let peppers = self.peppers(root.peppers)?;
        let issuers = self.issuers(root.issuers)?;
        let listen = root.listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
        let (admin, webhooks) = (root.admin, root.webhooks);
        Ok(Config { listen, tls, admin, nats, redis, limits, jobs, models, roles, tenants, webhooks, peppers, issuers, warnings })
    }

    fn nats(&self, file: Spanned<FileNats>) -> Result<Nats, ConfigError> {
        if file.value.replicas.is_some_and(|replicas| !(1..=5).contains(&replicas)) {
            return Err(self.at(&file, "nats.replicas: from 1 to 5"));
        }
        let tls = self.client_tls_by_host("nats.tls", file.value.tls.as_ref())?;
        file.value.max_bytes.check().map_err(|what| self.at(&file, format!("nats.max_bytes.{what}")))?;
        let FileNats { url, replicas, max_bytes, .. } = file.value;
        Ok(Nats { url, replicas, tls, max_bytes })
    }

    fn jobs(&self, file: Option<Spanned<Jobs>>) -> Result<Jobs, ConfigError> {
        let Some(file) = file else { return Ok(Jobs::default()) };
        file.value.check().map_err(|what| self.at(&file, format!("jobs: {what}")))?;
        Ok(file.value)
    }

    fn limits(&self, limits: Limits) -> Result<Limits, ConfigError> {
        let Limits { body_bytes_max, json_depth_max, inputs_max, in_flight_max, in_flight_per_tenant_max, .. } = limits;
        let counts = [body_bytes_max, json_depth_max, inputs_max, in_flight_max, in_flight_per_tenant_max];
        let Limits { request_timeout_ms, header_timeout_ms, body_timeout_ms, body_idle_timeout_ms, write_timeout_ms, .. } = limits;
        let times = [request_timeout_ms, header_timeout_ms, body_timeout_ms, body_idle_timeout_ms, write_timeout_ms];
        if counts.contains(&0) || times.contains(&0) || limits.connections_per_address_max == Some(0) {
            return Err(self.error(1, "limits: every limit but drain_timeout_ms must be above zero"));
        }
        let max_ms = super::REQUEST_TIMEOUT_MAX.as_millis();
        if u128::from(request_timeout_ms) > max_ms {
            return Err(self.error(1, format!("limits.request_timeout_ms: at most {max_ms} (one hour)")));
        }
        if body_bytes_max > BODY_BYTES_CEILING {
            return Err(self.error(1, format!("limits.body_bytes_max: at most {BODY_BYTES_CEILING} (1 GiB)")));
        }
        if limits.bodies_bytes_max < body_bytes_max {
            return Err(self.error(1, "limits.bodies_bytes_max: at least body_bytes_max, or the largest body is never taken"));
        }
        if json_depth_max > 120 {
            return Err(self.error(1, "limits.json_depth_max: at most 120"));
        }
        Ok(limits)
    }

    fn name(&self, name: &Spanned<String>, key: &str) -> Result<String, ConfigError> {
        check_name(&name.value).map_err(|why| self.at(name, format!("{key}: {why}")))?;
        Ok(name.value.clone())
    }
}

/// The key whose value stands here: the parser tells where a value is wrong, not whose it is.
fn key_before(yaml: &str, location: serde_saphyr::Location) -> Option<&str> {
    let line = yaml.lines().nth(usize::try_from(location.line()).ok()?.checked_sub(1)?)?;
    let before = line.get(..usize::try_from(location.column()).ok()?.checked_sub(1)?)?;
    let (key, _) = before.rsplit_once(':')?;
    key.rsplit([' ', '{', ',']).next().filter(|key| !key.is_empty())
}

fn literal_key(of: &str) -> String {
    format!("a key of {of} is written in the configuration itself: use env:NAME or file:PATH")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(yaml: &str) -> ConfigError {
        parse(yaml, "tidemill.yaml").unwrap_err()
    }

    #[test]
    fn the_built_in_configuration_serves_two_sandbox_models() {
        let config = Config::sandbox();
        let names: Vec<_> = config.models.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["sandbox-chat", "sandbox-embedding"]);
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let config = parse("", "f").unwrap();
        assert_eq!(config.listen.port(), 8080);
        assert!(config.models.is_empty());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = refused("listen: 127.0.0.1:1\nmodles: []\n");
        assert_eq!(error.line, 2);
        assert!(error.to_string().starts_with("tidemill.yaml:2: "), "{error}");
        assert!(error.what.contains("modles"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line_and_key() {
        let cases = [
            ("models:\n- name: m\n  kind: array\n  backends:\n  - kind: openai\n", 5, "url"),
            ("models:\n- name: m\n  kind: array\n  backends:\n  - kind: openai\n    url: ftp://x\n", 6, "url"),
            ("models:\n- name: m\n  kind: array\n  backends: []\n", 4, "backends"),
            ("models:\n- name: a b\n  kind: array\n  backends: [{ kind: sandbox }]\n", 2, "name"),
            ("tenants:\n- name: t\n  keys: [short]\n", 3, "keys"),
            ("tenants:\n- name: t\n- name: t\n", 3, "twice"),
            ("models:\n- name: m\n  kind: arrays\n  backends: []\n", 3, "kind"),
            ("nats:\n  url: nats://h\n  max_bytes: { files: 1 }\n", 2, "nats.max_bytes.files"),
            ("nats:\n  url: nats://h\n  max_bytes: { usage: 1 }\n", 2, "nats.max_bytes.usage"),
            ("models:\n- name: m\n  kind: array\n  backends: [{ kind: local }]\n", 4, "model_dir"),
            ("models:\n- name: m\n  kind: sequence\n  backends: [{ kind: local, model_dir: m }]\n", 4, "kind: array"),
            ("models:\n- name: m\n  kind: array\n  backends:\n  - kind: sandbox\n    model_dir: m\n", 6, "model_dir"),
            ("models:\n- name: m\n  kind: array\n  fallbacks: [n]\n  backends: [{ kind: sandbox }]\n", 4, "fallbacks"),
            ("models:\n- name: m\n  kind: array\n  fallbacks: [m]\n  backends: [{ kind: sandbox }]\n", 4, "fallbacks"),
            ("limits:\n  body_bytes_max: plenty\n", 2, "body_bytes_max"),
            ("limits:\n  bodies_bytes_max: 1000\n", 1, "bodies_bytes_max"),
            ("models:\n- name: m\n  kind: array\n  backends: [{ kind: sandbox, concurrency: -1 }]\n", 4, "concurrency"),
        ];
        for (yaml, line, key) in cases {
            let error = refused(yaml);
            assert_eq!(error.line, line, "{yaml}\n{error}");
            assert!(error.what.contains(key), "{error}");
        }
    }

    #[test]
    fn a_literal_key_works_with_a_warning_and_is_not_repeated() {
        let config = parse("tenants:\n- { name: t, keys: [sk-canary-9] }\n", "f").unwrap();
        assert_eq!(config.warnings.len(), 1);
        assert!(!config.warnings[0].contains("canary"));
    }

    /// Lines of configurations in any order, with what editing leaves behind: closer to YAML than noise.
    fn lines() -> impl Strategy<Value = String> {
        let line = prop::sample::select(vec![
            "listen: 127.0.0.1:1",
            "models:",
            "- name: m",
            "  kind: array",
            "  backends:",
            "  - kind: sandbox",
            "    concurrency: 99999999999999999999",
            "tenants: [",
            "nats: { url: nats://h",
            "limits: &a { body_bytes_max: *a }",
            "<<: *b",
            "? [a, b]",
            "\t- 'x",
            "--- !!binary |",
            "é: \"\\u0000\"",
            "roles: null",
            "...",
        ]);
        prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
    }

    proptest! {
        #[test]
        fn whatever_is_no_configuration_is_refused_with_a_place_and_a_reason(noise in "\\PC{0,200}", yaml in lines()) {
            for text in [noise, yaml] {
                if let Err(error) = parse(&text, "tidemill.yaml") {
                    let lines = text.lines().count() as u64 + 1;
                    prop_assert!(error.line <= lines, "{}: of {} lines", error, lines);
                    prop_assert!(error.file == "tidemill.yaml" && !error.what.is_empty());
                }
            }
        }
    }

    #[test]
    fn the_designs_example_parses() {
        let yaml = "
listen: 127.0.0.1:8080
nats: { url: nats://127.0.0.1:4222 }
models:
  - name: embed-small
    kind: array
    batching: { max_items: 64, max_tokens: 16384, objective_ms: 200 }
    backends:
      - { kind: openai, url: http://127.0.0.1:9000/v1, model: all-minilm-l6-v2, concurrency: 1 }
tenants:
  - name: search
    weight: 2
    keys: [ sk-literal ]
    limits: { requests_per_minute: 600, tokens_per_minute: 200000 }
";
        let config = parse(yaml, "f").unwrap();
        assert_eq!(config.models[0].backends[0].name, "openai-0");
        assert_eq!(config.tenants[0].weight, 2);
        assert_eq!(config.tenants[0].quota.requests_per_minute, Some(600));
    }
}
