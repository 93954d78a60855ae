//! edge: the file's `tenants`, and their conversion.

use super::{Reader, literal_key};
use crate::config::{ConfigError, Secret, Tenant};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::HashSet;

/// A bound of what every replica holds in memory and every metric may be labelled with.
const TENANTS_MAX: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTenant {
    name: Spanned<String>,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    keys: Vec<Spanned<String>>,
}

const fn one() -> u32 {
    1
}

impl Reader<'_> {
    pub(super) fn tenants(&self, files: &[FileTenant], warnings: &mut Vec<String>) -> Result<Vec<Tenant>, ConfigError> {
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
