//! edge: the file's `roles` and `peppers`, and their conversion.

use super::Reader;
use crate::config::{ConfigError, PepperConfig, Secret};
use crate::identity::Role;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, HashSet};

/// A bound of what every replica holds in memory.
const ROLES_MAX: usize = 1_000;
/// One in force, and those before it whose keys are still in use.
const PEPPERS_MAX: usize = 16;
/// 128 bits in hexadecimal: a pepper is made by a machine.
const PEPPER_LEN_MIN: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilePeppers {
    current: u32,
    values: BTreeMap<u32, Spanned<String>>,
}

impl Reader<'_> {
    pub(super) fn roles(&self, files: Vec<Spanned<Role>>) -> Result<Vec<Role>, ConfigError> {
        let mut names = HashSet::new();
        for file in &files {
            file.value.check().map_err(|why| self.at(file, format!("roles[] `{}`: {why}", file.value.name)))?;
            if !names.insert(file.value.name.clone()) {
                return Err(self.at(file, format!("roles[].name: `{}` is there twice", file.value.name)));
            }
            if names.len() > ROLES_MAX {
                return Err(self.at(file, format!("roles: more than {ROLES_MAX}")));
            }
        }
        Ok(files.into_iter().map(|file| file.value).collect())
    }

    pub(super) fn peppers(&self, file: Option<Spanned<FilePeppers>>) -> Result<Option<PepperConfig>, ConfigError> {
        let Some(file) = file else { return Ok(None) };
        let FilePeppers { current, values } = &file.value;
        if values.len() > PEPPERS_MAX {
            return Err(self.at(&file, format!("peppers.values: at most {PEPPERS_MAX}")));
        }
        if !values.contains_key(current) {
            return Err(self.at(&file, format!("peppers.current: there is no {current} among peppers.values")));
        }
        let values = values.iter().map(|(version, reference)| Ok((*version, self.pepper(*version, reference)?)));
        Ok(Some(PepperConfig { current: *current, values: values.collect::<Result<_, _>>()? }))
    }

    fn pepper(&self, version: u32, reference: &Spanned<String>) -> Result<Secret, ConfigError> {
        let refused = |why: String| self.at(reference, format!("peppers.values.{version}: {why}"));
        if Secret::is_literal(&reference.value) {
            return Err(refused("use env:NAME or file:PATH: whoever reads this file must not learn it".to_owned()));
        }
        let pepper = Secret::resolve(&reference.value).map_err(refused)?;
        if pepper.expose().len() < PEPPER_LEN_MIN {
            return Err(refused(format!("use {PEPPER_LEN_MIN} or more random characters")));
        }
        Ok(pepper)
    }
}
