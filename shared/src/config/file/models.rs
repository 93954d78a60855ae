//! edge: the file's `models`, and their conversion.

use super::batching::FileBatching;
use super::{Reader, literal_key};
use crate::config::{Backend, ClientTls, ConfigError, Model, Price, SandboxConfig, Secret, Target};
use crate::domain::{ModelKind, Token};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

/// Calls at once to a backend of sequences that does not say: modest for a server that batches continuously.
const SEQUENCE_CONCURRENCY: u32 = 64;
/// An array backend is one accelerator until the file says otherwise: unbounded calls in flight halve the gain of batching.
const ARRAY_CONCURRENCY: u32 = 1;
const TOKENS_MAX: u32 = 1 << 20;
const BACKEND_TIMEOUT_MS: u64 = 120_000;
/// Bounds of what every replica holds in memory and every metric may be labelled with.
const MODELS_MAX: usize = 1_000;
const BACKENDS_MAX: usize = 64;
/// A request that five models have failed is answered.
const FALLBACKS_MAX: usize = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileModel {
    name: Spanned<String>,
    kind: ModelKind,
    #[serde(default)]
    batching: Option<Spanned<FileBatching>>,
    #[serde(default)]
    price: Price,
    max_queue_ms: Option<u64>,
    context_tokens: Option<u32>,
    #[serde(default)]
    fallbacks: Vec<Spanned<String>>,
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
    tls: Option<Spanned<ClientTls>>,
    stream_usage: Option<Spanned<bool>>,
    concurrency: Option<u32>,
    tokens_max: Option<u32>,
    per_worker: Option<bool>,
    timeout_ms: Option<u64>,
    sandbox: Option<Spanned<SandboxConfig>>,
    model_dir: Option<Spanned<PathBuf>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileBackendKind {
    Openai,
    Sandbox,
    Local,
}

impl FileBackendKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Sandbox => "sandbox",
            Self::Local => "local",
        }
    }
}

impl Reader<'_> {
    pub(super) fn models(&self, files: Vec<FileModel>, warnings: &mut Vec<String>) -> Result<Vec<Model>, ConfigError> {
        let mut names = HashSet::new();
        let (mut models, mut fallbacks) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()));
        for file in files {
            let name = self.name(&file.name, "models[].name")?;
            if !names.insert(name.clone()) {
                return Err(self.at(&file.name, format!("models[].name: `{name}` is there twice")));
            }
            if models.len() == MODELS_MAX {
                return Err(self.at(&file.name, format!("models: more than {MODELS_MAX}")));
            }
            let backends = self.backends(&name, file.kind, file.backends, warnings)?;
            let batching = self.batching(file.batching, &backends)?;
            let max_queue_ms = file.max_queue_ms;
            fallbacks.push(file.fallbacks.clone());
            models.push(Model {
                token: Token::of_model(&name),
                name,
                kind: file.kind,
                batching,
                price: file.price,
                max_queue_ms,
                context_tokens: file.context_tokens,
                fallbacks: file.fallbacks.iter().map(|name| name.value.clone()).collect(),
                backends,
            });
        }
        self.fallbacks(&models, &fallbacks)?;
        Ok(models)
    }

    /// Each is another model of the same kind.
    fn fallbacks(&self, models: &[Model], named: &[Vec<Spanned<String>>]) -> Result<(), ConfigError> {
        for (model, fallbacks) in models.iter().zip(named) {
            for (at, name) in fallbacks.iter().enumerate() {
                let Some(other) = models.iter().find(|other| other.name == name.value) else {
                    return Err(self.at(name, format!("models[].fallbacks: there is no model `{}`", name.value)));
                };
                if other.kind != model.kind || other.name == model.name {
                    return Err(self.at(name, "models[].fallbacks: name other models of the same kind"));
                }
                if at == FALLBACKS_MAX || fallbacks[..at].iter().any(|before| before.value == name.value) {
                    return Err(self.at(name, format!("models[].fallbacks: up to {FALLBACKS_MAX} models, each once")));
                }
            }
        }
        Ok(())
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
        self.no_foreign_keys(file)?;
        let target = match file.kind.value {
            FileBackendKind::Openai => self.openai(model, file, warnings)?,
            FileBackendKind::Sandbox => self.sandbox(file)?,
            FileBackendKind::Local => self.local(kind, file)?,
        };
        let name = match &file.name {
            Some(name) => self.name(name, "backends[].name")?,
            None => format!("{}-{index}", file.kind.value.as_str()),
        };
        let default_concurrency = if kind == ModelKind::Array { ARRAY_CONCURRENCY } else { SEQUENCE_CONCURRENCY };
        let concurrency = file.concurrency.unwrap_or(default_concurrency);
        let tokens_max = file.tokens_max.unwrap_or(TOKENS_MAX);
        let timeout_ms = file.timeout_ms.unwrap_or(BACKEND_TIMEOUT_MS);
        if concurrency == 0 || tokens_max == 0 || timeout_ms == 0 {
            return Err(self.at(&file.kind, "backends[]: concurrency, tokens_max and timeout_ms must be above zero"));
        }
        let timeout = Duration::from_millis(timeout_ms);
        // Each worker has a local model of its own.
        let per_worker = file.per_worker.unwrap_or(file.kind.value == FileBackendKind::Local);
        Ok(Backend { name, target, concurrency, tokens_max, per_worker, timeout })
    }

    /// Keys of another kind would be ignored, which nobody means.
    fn no_foreign_keys(&self, file: &FileBackend) -> Result<(), ConfigError> {
        let is = |kind| file.kind.value == kind;
        self.absent_unless(is(FileBackendKind::Openai), file.url.as_ref(), "url: only for kind: openai")?;
        self.absent_unless(is(FileBackendKind::Openai), file.key.as_ref(), "key: only for kind: openai")?;
        self.absent_unless(is(FileBackendKind::Openai), file.tls.as_ref(), "tls: only for kind: openai")?;
        self.absent_unless(is(FileBackendKind::Openai), file.stream_usage.as_ref(), "stream_usage: only for kind: openai")?;
        self.absent_unless(is(FileBackendKind::Sandbox), file.sandbox.as_ref(), "sandbox: only for kind: sandbox")?;
        self.absent_unless(is(FileBackendKind::Local), file.model_dir.as_ref(), "model_dir: only for kind: local")
    }

    fn absent_unless<T>(&self, may_be: bool, value: Option<&Spanned<T>>, what: &str) -> Result<(), ConfigError> {
        match value {
            Some(value) if !may_be => Err(self.at(value, format!("backends[].{what}"))),
            _ => Ok(()),
        }
    }

    fn local(&self, kind: ModelKind, file: &FileBackend) -> Result<Target, ConfigError> {
        if kind != ModelKind::Array {
            return Err(self.at(&file.kind, "backends[].kind: local models make embeddings only: the model must be of kind: array"));
        }
        let Some(folder) = &file.model_dir else {
            return Err(self.at(&file.kind, "backends[].model_dir: kind local needs the folder of a model"));
        };
        Ok(Target::Local { model_dir: folder.value.clone() })
    }

    fn openai(&self, model: &str, file: &FileBackend, warnings: &mut Vec<String>) -> Result<Target, ConfigError> {
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
        if let Some(tls) = file.tls.as_ref().filter(|_| text.starts_with("http://")) {
            return Err(self.at(tls, "backends[].tls: the url is http://, which has none; write https://"));
        }
        let tls = self.client_tls("backends[].tls", file.tls.as_ref())?;
        let model = file.model.clone().unwrap_or_else(|| model.to_owned());
        let stream_usage = file.stream_usage.as_ref().is_none_or(|said| said.value);
        Ok(Target::OpenAi { url: text.to_owned(), model, key, tls, stream_usage })
    }

    fn sandbox(&self, file: &FileBackend) -> Result<Target, ConfigError> {
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
}
