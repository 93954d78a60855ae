//! edge: a model's `batching` in the file, and its conversion.

use super::Reader;
use crate::config::{Backend, Batching, ConfigError, Target};
use serde::Deserialize;
use serde_saphyr::Spanned;

/// As many inputs as OpenAI takes in one call.
const ITEMS_MAX: u32 = 2_048;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileBatching {
    max_items: Option<u32>,
    max_tokens: Option<u32>,
    padded: Option<bool>,
    objective_ms: Option<u32>,
}

impl Reader<'_> {
    pub(super) fn batching(&self, file: Option<Spanned<FileBatching>>, backends: &[Backend]) -> Result<Batching, ConfigError> {
        let Some(file) = file else { return Ok(FileBatching::default().filled(backends)) };
        let batching = file.value.filled(backends);
        if batching.max_items == 0 || batching.max_items > ITEMS_MAX {
            return Err(self.at(&file, format!("batching.max_items: from 1 to {ITEMS_MAX}")));
        }
        if batching.max_tokens == 0 || batching.objective_ms == 0 {
            return Err(self.at(&file, "batching.max_tokens and batching.objective_ms must be above zero"));
        }
        Ok(batching)
    }
}

impl FileBatching {
    /// What is not said depends on who does the work: a local model pads.
    fn filled(&self, backends: &[Backend]) -> Batching {
        let usual = Batching::default();
        let pads = backends.iter().any(|backend| matches!(backend.target, Target::Local { .. }));
        Batching {
            max_items: self.max_items.unwrap_or(usual.max_items),
            max_tokens: self.max_tokens.unwrap_or(usual.max_tokens),
            padded: self.padded.unwrap_or(pads),
            objective_ms: self.objective_ms.unwrap_or(usual.objective_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Model, parse};

    fn model(batching: &str, backend: &str) -> Model {
        let yaml = format!("models:\n- name: m\n  kind: array\n  {batching}\n  backends: [{{ {backend} }}]\n");
        parse(&yaml, "f").unwrap().models.remove(0)
    }

    fn padded(batching: &str, backend: &str) -> bool {
        model(batching, backend).batching.padded
    }

    #[test]
    fn a_local_model_pads_unless_the_file_says_otherwise() {
        assert!(padded("", "kind: local, model_dir: m"));
        assert!(padded("batching: { max_items: 8 }", "kind: local, model_dir: m"));
        assert!(!padded("batching: { padded: false }", "kind: local, model_dir: m"));
        assert!(!padded("", "kind: sandbox"));
    }

    #[test]
    fn each_worker_has_a_local_model_for_itself() {
        let backend = model("", "kind: local, model_dir: m").backends.remove(0);
        assert_eq!((backend.concurrency, backend.per_worker, backend.name.as_str()), (1, true, "local-0"));
    }
}
