//! edge: the configuration file's shape (YAML), and its conversion into [`Config`] with errors that name file, line and key.

use super::{Backend, Batching, Config, Limits, Model, Nats, SandboxConfig, Secret, Target, Tenant};
use crate::domain::{ModelKind, Token};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

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
    nats: Option<Spanned<Nats>>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    models: Vec<FileModel>,
    #[serde(default)]
    tenants: Vec<FileTenant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileModel {
    name: Spanned<String>,
    kind: ModelKind,
    #[serde(default)]
    batching: Option<Spanned<Batching>>,
    backends: Spanned<Vec<FileBackend>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBackend {
    kind: Spanned<FileBackendKind>,
    name: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    model: Option<String>,
    key: Option<Spanned<String>>,
    concurrency: Option<u32>,
    tokens_max: Option<u32>,
    #[serde(default)]
    per_worker: bool,
    timeout_ms: Option<u64>,
    sandbox: Option<Spanned<SandboxConfig>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileBackendKind {
    Openai,
    Sandbox,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTenant {
    name: Spanned<String>,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    keys: Vec<Spanned<String>>,
}

const fn one() -> u32 {
    1
}

const DEFAULT_PORT: u16 = 8080;
/// Calls at once to a backend of sequences that does not say: modest for a server that batches continuously.
const SEQUENCE_CONCURRENCY: u32 = 64;
/// An array backend is one accelerator until the file says otherwise: unbounded calls in flight halve the gain of batching.
const ARRAY_CONCURRENCY: u32 = 1;
const TOKENS_MAX: u32 = 1 << 20;
/// A body is held in memory whole, and places in it are told in 32 bits.
const BODY_BYTES_CEILING: usize = 1 << 30;
const BACKEND_TIMEOUT_MS: u64 = 120_000;
/// Bounds of what every replica holds in memory and every metric may be labelled with.
const MODELS_MAX: usize = 1_000;
const TENANTS_MAX: usize = 100_000;
const BACKENDS_MAX: usize = 64;

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
        let nats = self.nats(root.nats)?;
        let limits = self.limits(root.limits)?;
        let models = self.models(root.models, &mut warnings)?;
        let tenants = self.tenants(&root.tenants, &mut warnings)?;
        let listen = root.listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
        Ok(Config { listen, nats, limits, models, tenants, warnings })
    }

    fn nats(&self, file: Option<Spanned<Nats>>) -> Result<Option<Nats>, ConfigError> {
        let Some(file) = file else { return Ok(None) };
        if file.value.replicas.is_some_and(|replicas| !(1..=5).contains(&replicas)) {
            return Err(self.at(&file, "nats.replicas: from 1 to 5"));
        }
        Ok(Some(file.value))
    }

    fn limits(&self, limits: Limits) -> Result<Limits, ConfigError> {
        let Limits { body_bytes_max, json_depth_max, inputs_max, in_flight_max, in_flight_per_tenant_max, .. } = limits;
        let counts = [body_bytes_max, json_depth_max, inputs_max, in_flight_max, in_flight_per_tenant_max];
        let Limits { request_timeout_ms, header_timeout_ms, body_timeout_ms, .. } = limits;
        let times = [request_timeout_ms, header_timeout_ms, body_timeout_ms];
        if counts.contains(&0) || times.contains(&0) {
            return Err(self.error(1, "limits: every limit but drain_timeout_ms must be above zero"));
        }
        let max_ms = super::REQUEST_TIMEOUT_MAX.as_millis();
        if u128::from(request_timeout_ms) > max_ms {
            return Err(self.error(1, format!("limits.request_timeout_ms: at most {max_ms} (one hour)")));
        }
        if body_bytes_max > BODY_BYTES_CEILING {
            return Err(self.error(1, format!("limits.body_bytes_max: at most {BODY_BYTES_CEILING} (1 GiB)")));
        }
        if json_depth_max > 120 {
            return Err(self.error(1, "limits.json_depth_max: at most 120"));
        }
        Ok(limits)
    }

    fn models(&self, files: Vec<FileModel>, warnings: &mut Vec<String>) -> Result<Vec<Model>, ConfigError> {
        let mut names = HashSet::new();
        let mut models = Vec::with_capacity(files.len());
        for file in files {
            let name = self.name(&file.name, "models[].name")?;
            if !names.insert(name.clone()) {
                return Err(self.at(&file.name, format!("models[].name: `{name}` is there twice")));
            }
            if models.len() == MODELS_MAX {
                return Err(self.at(&file.name, format!("models: more than {MODELS_MAX}")));
            }
            let batching = self.batching(file.batching)?;
            let backends = self.backends(&name, file.kind, file.backends, warnings)?;
            models.push(Model { token: Token::of_model(&name), name, kind: file.kind, batching, backends });
        }
        Ok(models)
    }

    /// Names show in headers, logs and metric labels: visible, and short.
    fn name(&self, name: &Spanned<String>, key: &str) -> Result<String, ConfigError> {
        let text = &name.value;
        if text.is_empty() || text.len() > 128 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(self.at(name, format!("{key}: use 1 to 128 visible ASCII characters, without spaces")));
        }
        Ok(text.clone())
    }

    fn batching(&self, file: Option<Spanned<Batching>>) -> Result<Batching, ConfigError> {
        let Some(file) = file else { return Ok(Batching::default()) };
        let Batching { max_items, max_tokens, objective_ms, .. } = file.value;
        if max_items == 0 || max_items > 2_048 {
            return Err(self.at(&file, "batching.max_items: from 1 to 2048"));
        }
        if max_tokens == 0 || objective_ms == 0 {
            return Err(self.at(&file, "batching.max_tokens and batching.objective_ms must be above zero"));
        }
        Ok(file.value)
    }

    fn backends(
        &self,
        model: &str,
        kind: ModelKind,
        files: Spanned<Vec<FileBackend>>,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Backend>, ConfigError> {
        if files.value.is_empty() || files.value.len() > BACKENDS_MAX {
            return Err(self.at(&files, format!("backends: from 1 to {BACKENDS_MAX} for model `{model}`")));
        }
        let mut names = HashSet::new();
        let mut backends = Vec::with_capacity(files.value.len());
        for (index, file) in files.value.into_iter().enumerate() {
            let backend = self.backend(model, kind, index, &file, warnings)?;
            if !names.insert(backend.name.clone()) {
                return Err(self.at(&file.kind, format!("backends[].name: `{}` is there twice for model `{model}`", backend.name)));
            }
            backends.push(backend);
        }
        Ok(backends)
    }

    fn backend(
        &self,
        model: &str,
        kind: ModelKind,
        index: usize,
        file: &FileBackend,
        warnings: &mut Vec<String>,
    ) -> Result<Backend, ConfigError> {
        let target = match file.kind.value {
            FileBackendKind::Openai => self.openai(model, file, warnings)?,
            FileBackendKind::Sandbox => self.sandbox(file)?,
        };
        let default_name = match file.kind.value {
            FileBackendKind::Openai => format!("openai-{index}"),
            FileBackendKind::Sandbox => format!("sandbox-{index}"),
        };
        let name = match &file.name {
            Some(name) => self.name(name, "backends[].name")?,
            None => default_name,
        };
        let default_concurrency = if kind == ModelKind::Array { ARRAY_CONCURRENCY } else { SEQUENCE_CONCURRENCY };
        let concurrency = file.concurrency.unwrap_or(default_concurrency);
        let tokens_max = file.tokens_max.unwrap_or(TOKENS_MAX);
        let timeout_ms = file.timeout_ms.unwrap_or(BACKEND_TIMEOUT_MS);
        if concurrency == 0 || tokens_max == 0 || timeout_ms == 0 {
            return Err(self.at(&file.kind, "backends[]: concurrency, tokens_max and timeout_ms must be above zero"));
        }
        let timeout = Duration::from_millis(timeout_ms);
        Ok(Backend { name, target, concurrency, tokens_max, per_worker: file.per_worker, timeout })
    }

    fn openai(&self, model: &str, file: &FileBackend, warnings: &mut Vec<String>) -> Result<Target, ConfigError> {
        if let Some(sandbox) = &file.sandbox {
            return Err(self.at(sandbox, "backends[].sandbox: only for kind: sandbox"));
        }
        let Some(url) = &file.url else {
            return Err(self.at(&file.kind, "backends[].url: kind openai needs one, such as http://127.0.0.1:9000/v1"));
        };
        let text = url.value.trim_end_matches('/');
        if !(text.starts_with("http://") || text.starts_with("https://")) || text.contains(['?', '#', '@', ' ']) {
            return Err(self.at(url, "backends[].url: use http:// or https://, without a query, a fragment or credentials"));
        }
        let key = match &file.key {
            Some(reference) => {
                if Secret::is_literal(&reference.value) {
                    warnings.push(literal_key(&format!("a backend of model `{model}`")));
                }
                Some(Secret::resolve(&reference.value).map_err(|e| self.at(reference, format!("backends[].key: {e}")))?)
            }
            None => None,
        };
        Ok(Target::OpenAi { url: text.to_owned(), model: file.model.clone().unwrap_or_else(|| model.to_owned()), key })
    }

    fn sandbox(&self, file: &FileBackend) -> Result<Target, ConfigError> {
        let foreign = [(&file.url, "url"), (&file.key, "key")].into_iter().find_map(|(value, key)| value.as_ref().map(|v| (v, key)));
        if let Some((value, key)) = foreign {
            return Err(self.at(value, format!("backends[].{key}: only for kind: openai")));
        }
        let Some(sandbox) = &file.sandbox else { return Ok(Target::Sandbox(SandboxConfig::default())) };
        let config = &sandbox.value;
        let spans = [config.a_ms, config.b_ms, config.padded_token_ms, config.first_token_ms, config.token_ms];
        if !spans.iter().all(|ms| ms.is_finite() && (0.0..=600_000.0).contains(ms)) {
            return Err(self.at(sandbox, "sandbox: times are from 0 to 600000 milliseconds"));
        }
        if config.dimensions == 0 || config.dimensions > 8_192 {
            return Err(self.at(sandbox, "sandbox.dimensions: from 1 to 8192"));
        }
        if !config.faults.iter().all(|f| (0.0..=1.0).contains(&f.rate)) || config.faults.iter().map(|f| f.rate).sum::<f64>() > 1.0 {
            return Err(self.at(sandbox, "sandbox.faults[].rate: each from 0 to 1, together at most 1"));
        }
        Ok(Target::Sandbox(config.clone()))
    }

    fn tenants(&self, files: &[FileTenant], warnings: &mut Vec<String>) -> Result<Vec<Tenant>, ConfigError> {
        let mut names = HashSet::new();
        let mut keys_seen = HashSet::new();
        let mut tenants = Vec::with_capacity(files.len());
        for file in files {
            let name = self.name(&file.name, "tenants[].name")?;
            if !names.insert(name.clone()) {
                return Err(self.at(&file.name, format!("tenants[].name: `{name}` is there twice")));
            }
            if tenants.len() == TENANTS_MAX {
                return Err(self.at(&file.name, format!("tenants: more than {TENANTS_MAX}")));
            }
            if file.weight == 0 || file.weight > 10_000 {
                return Err(self.at(&file.name, format!("tenants[].weight of `{name}`: from 1 to 10000")));
            }
            let mut keys = Vec::with_capacity(file.keys.len());
            for reference in &file.keys {
                let key = Secret::resolve(&reference.value).map_err(|e| self.at(reference, format!("tenants[].keys of `{name}`: {e}")))?;
                if !keys_seen.insert(key.expose().to_owned()) {
                    return Err(self.at(reference, format!("tenants[].keys of `{name}`: this key is there twice")));
                }
                if Secret::is_literal(&reference.value) {
                    warnings.push(literal_key(&format!("tenant `{name}`")));
                }
                keys.push(key);
            }
            tenants.push(Tenant { name, weight: file.weight, keys });
        }
        Ok(tenants)
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
            ("limits:\n  body_bytes_max: plenty\n", 2, "body_bytes_max"),
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

    #[test]
    fn the_designs_example_parses_but_for_limits_that_do_not_exist_yet() {
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
";
        let config = parse(yaml, "f").unwrap();
        assert_eq!(config.models[0].backends[0].name, "openai-0");
        assert_eq!(config.tenants[0].weight, 2);
        let limited = yaml.replace("weight: 2", "limits: { requests_per_minute: 600 }");
        assert!(parse(&limited, "f").unwrap_err().what.contains("limits"), "a limit that is not enforced is refused, not ignored");
    }
}
