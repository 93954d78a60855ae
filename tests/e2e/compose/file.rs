//! edge: the part of a compose file that the test runs or judges.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
pub(super) struct Compose {
    pub(super) services: BTreeMap<String, Service>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Service {
    pub(super) image: String,
    pub(super) command: Vec<String>,
    pub(super) restart: String,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) volumes: Vec<String>,
    #[serde(default)]
    pub(super) ports: Vec<String>,
    #[serde(default)]
    pub(super) depends_on: BTreeMap<String, Dependency>,
    pub(super) healthcheck: HealthCheck,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) condition: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct HealthCheck {
    pub(super) test: Vec<String>,
}

impl Compose {
    pub(super) fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(path).expect("the compose file is there");
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

impl Service {
    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, String)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), interpolated(value)))
    }

    pub(super) fn environment_value(&self, name: &str) -> String {
        interpolated(&self.environment[name])
    }
}

/// `${NAME:-default}` is its default here: the test must not depend on the developer's shell.
fn interpolated(value: &str) -> String {
    let inner = value.strip_prefix("${").and_then(|v| v.strip_suffix('}'));
    inner.and_then(|v| v.split_once(":-")).map_or_else(|| value.to_owned(), |(_, default)| default.to_owned())
}
