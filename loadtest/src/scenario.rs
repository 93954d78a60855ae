//! core: what is asked of every contender, as data: a TOML file says how requests arrive, of what kinds, lengths and tenants.

use crate::backend::{answer, vector};
use crate::load::{Arrivals, Plan, Until};
use crate::texts;
use crate::work::{Check, Mode, Work};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The scenarios of a comparison, in its order.
const STANDARD: [(&str, &str); 9] = [
    ("chat-1", include_str!("../scenarios/chat-1.toml")),
    ("chat-16", include_str!("../scenarios/chat-16.toml")),
    ("chat-64", include_str!("../scenarios/chat-64.toml")),
    ("chat-256", include_str!("../scenarios/chat-256.toml")),
    ("stream-16", include_str!("../scenarios/stream-16.toml")),
    ("embed-64", include_str!("../scenarios/embed-64.toml")),
    ("embed-1", include_str!("../scenarios/embed-1.toml")),
    ("mixed-64", include_str!("../scenarios/mixed-64.toml")),
    ("open-mix", include_str!("../scenarios/open-mix.toml")),
];

/// Different texts of each kind of request.
const TEXTS: usize = 1_000;
/// Texts of one call: the most that OpenAI takes.
const INPUTS_MAX: usize = 2_048;
/// Shares of a mix may be at most this, so that the list of works stays small.
const SHARE_MAX: usize = 100;
/// Every how manieth answer is compared with what it should be.
const CHECK_EVERY: u64 = 16;

#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("{name}: {source}")]
    Toml { name: String, source: toml::de::Error },
    #[error("{name}: {reason}")]
    Invalid { name: String, reason: &'static str },
    #[error("there is no scenario `{name}`; the standard ones are {}", STANDARD.map(|(name, _)| name).join(", "))]
    Unknown { name: String },
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    #[serde(skip_deserializing)]
    pub name: String,
    pub about: String,
    pub arrival: Arrival,
    pub mix: Vec<Kind>,
    #[serde(default = "default_seconds")]
    pub seconds: f64,
    #[serde(default = "default_warm_up")]
    pub warm_up_seconds: f64,
    /// In whose names the requests come, in turn.
    #[serde(default = "one")]
    pub tenants: usize,
    /// On every request. Lanes are chosen so: `Prefer = "respond-async"`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Asked instead of the models of the mix.
    #[serde(skip_deserializing)]
    pub model: Option<String>,
    /// Only these meet it. Absent: all.
    pub contenders: Option<Vec<String>>,
}

/// A closed loop of callers, or a rate a second over so many connections.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Arrival {
    Closed { callers: usize },
    Open { rate: f64, connections: usize },
}

/// One kind of request of the mix.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    pub mode: Mode,
    pub model: String,
    /// Of the mix, in whole numbers.
    #[serde(default = "one")]
    pub share: usize,
    /// Texts of one call of embeddings.
    #[serde(default = "one")]
    pub inputs: usize,
    /// Bytes of its texts: equally spaced quantiles, from the shortest to the longest; one number: all alike.
    pub lengths: Vec<usize>,
}

const fn one() -> usize {
    1
}

const fn default_seconds() -> f64 {
    2.0
}

const fn default_warm_up() -> f64 {
    0.5
}

/// Between a scenario's name and the texts of one call.
pub const IN_CALLS: &str = "-in-calls-of-";

/// What is asked of a model that is not the mock's: the scenarios of embeddings, and what the model itself makes of their texts in fixed calls.
pub fn standard_of_model(model: &str) -> Result<Vec<Scenario>, ScenarioError> {
    let [alone, many, mixed] = ["embed-1", "embed-64", "mixed-64"].map(named);
    let (alone, many, mixed) = (alone?, many?, mixed?);
    let full = many.clone().in_calls_of(64);
    let fixed: Vec<Scenario> = [2, 4, 8, 16].map(|inputs| mixed.clone().in_calls_of(inputs)).into();
    let all = [vec![alone, many, full, Scenario { contenders: None, ..mixed }], fixed].concat();
    Ok(all.into_iter().map(|scenario| scenario.of_model(model)).collect())
}

/// All of the standard scenarios.
pub fn standard() -> Result<Vec<Scenario>, ScenarioError> {
    STANDARD.iter().map(|(name, toml)| parse(name, toml)).collect()
}

/// A standard scenario.
pub fn named(name: &str) -> Result<Scenario, ScenarioError> {
    let found = STANDARD.iter().find(|(known, _)| *known == name);
    found.map_or_else(|| Err(ScenarioError::Unknown { name: name.to_owned() }), |(name, toml)| parse(name, toml))
}

/// Reads a scenario file's text.
pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
    let mut scenario: Scenario = toml::from_str(text).map_err(|source| ScenarioError::Toml { name: name.to_owned(), source })?;
    name.clone_into(&mut scenario.name);
    match scenario.objection() {
        Some(reason) => Err(ScenarioError::Invalid { name: name.to_owned(), reason }),
        None => Ok(scenario),
    }
}

impl Scenario {
    fn objection(&self) -> Option<&'static str> {
        let is_span = |seconds: f64| (0.0..=3_600.0).contains(&seconds);
        let arrives = match self.arrival {
            Arrival::Closed { callers } => callers > 0,
            Arrival::Open { rate, connections } => rate > 0.0 && rate.is_finite() && connections > 0,
        };
        match () {
            () if !arrives => Some("somebody must call: callers, rate and connections are above zero"),
            () if self.mix.is_empty() => Some("the mix is empty"),
            () if self.mix.iter().any(|kind| kind.share == 0 || kind.share > SHARE_MAX) => Some("a share is between 1 and 100"),
            () if self.mix.iter().any(|kind| kind.lengths.is_empty()) => Some("a kind of request needs lengths"),
            () if self.mix.iter().any(|kind| !(1..=INPUTS_MAX).contains(&kind.inputs)) => Some("a call has 1 to 2048 inputs"),
            () if self.mix.iter().any(|kind| kind.inputs > 1 && kind.mode != Mode::Embed) => Some("only embeddings have several inputs"),
            () if self.tenants == 0 => Some("there must be a tenant"),
            () if self.seconds <= 0.0 || !is_span(self.seconds) || !is_span(self.warm_up_seconds) => Some("spans are up to an hour"),
            () => None,
        }
    }

    /// The same asked of another model than the mock's.
    #[must_use]
    pub fn of_model(mut self, model: &str) -> Self {
        self.model = Some(model.to_owned());
        self
    }

    /// The same texts straight to the backend, so many a call in their order. Two callers: it is never idle.
    #[must_use]
    pub fn in_calls_of(mut self, inputs: usize) -> Self {
        self.about = format!("calls of {inputs} texts, 2 callers; texts: {}", self.about);
        self.name = format!("{}{IN_CALLS}{inputs}", self.name);
        self.arrival = Arrival::Closed { callers: 2 };
        self.contenders = Some(vec!["direct".to_owned()]);
        self.mix.iter_mut().for_each(|kind| kind.inputs = inputs);
        self
    }

    /// Texts of one call, where all calls have as many.
    pub fn inputs(&self) -> usize {
        self.mix.first().map_or(1, |kind| kind.inputs)
    }

    pub fn plan(&self) -> Plan {
        let arrivals = match self.arrival {
            Arrival::Closed { callers } => Arrivals::Closed { callers },
            Arrival::Open { rate, connections } => Arrivals::Open { rate, connections },
        };
        Plan { arrivals, until: Until::Elapsed(self.span()), warm_up: self.warm_up(), check_every: CHECK_EVERY }
    }

    pub fn span(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_seconds)
    }

    pub fn is_for(&self, contender: &str) -> bool {
        self.contenders.as_ref().is_none_or(|names| names.iter().any(|name| name == contender))
    }

    /// The requests: each kind as often as its share, interleaved, so that no kind comes in bursts.
    pub fn works(&self) -> Arc<[Work]> {
        let kinds: Vec<(usize, Work)> = self.mix.iter().map(|kind| (kind.share, kind.work(self.model.as_deref()))).collect();
        let rounds = kinds.iter().map(|(share, _)| *share).max().unwrap_or(0);
        (0..rounds).flat_map(|round| kinds.iter().filter(move |(share, _)| round < *share).map(|(_, work)| work.clone())).collect()
    }
}

impl Kind {
    pub fn texts(&self) -> Vec<String> {
        texts::with_lengths(TEXTS, &self.lengths)
    }

    /// Checked against what the mock would answer. Another model's vectors are its own.
    fn work(&self, model: Option<&str>) -> Work {
        let texts: Arc<[String]> = self.texts().into();
        let check = match self.mode {
            _ if model.is_some() => Check::Status,
            Mode::Embed => Check::Contains(texts.iter().map(|text| vector::base64(text)).collect()),
            Mode::Chat | Mode::Stream => Check::Tag(answer::HASH_KEY.into()),
        };
        Work { mode: self.mode, model: model.unwrap_or(&self.model).to_owned(), inputs: self.inputs, texts, check }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MIXED: &str = r#"
        about = "a mix"
        arrival = { rate = 50.0, connections = 8 }
        headers = { Prefer = "respond-async" }
        mix = [
            { mode = "chat", model = "chat", share = 3, lengths = [40] },
            { mode = "embed", model = "accelerator", lengths = [4, 40] },
        ]
    "#;

    #[test]
    fn every_file_of_the_folder_is_a_standard_scenario() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios")).unwrap();
        let files: BTreeSet<String> = folder.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        let names: BTreeSet<String> = standard().unwrap().into_iter().map(|scenario| scenario.name).collect();
        assert_eq!(files, names);
    }

    #[test]
    fn a_share_is_how_often_a_kind_comes() {
        let works = parse("mixed", MIXED).unwrap().works();
        let modes: Vec<Mode> = works.iter().map(|work| work.mode).collect();
        assert_eq!(modes, [Mode::Chat, Mode::Embed, Mode::Chat, Mode::Chat]);
    }

    #[test]
    fn an_open_arrival_becomes_an_open_plan() {
        let plan = parse("mixed", MIXED).unwrap().plan();
        assert!(matches!(plan.arrivals, Arrivals::Open { connections: 8, .. }));
        assert!(matches!(plan.until, Until::Elapsed(span) if span == Duration::from_secs(2)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (from, to) in
            [("rate = 50.0", "rate = 0.0"), ("share = 3", "share = 0"), ("lengths = [40]", "lengths = []"), ("about", "abuot")]
        {
            let error = parse("mixed", &MIXED.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with("mixed: "), "{error}");
        }
        assert!(named("no-such").unwrap_err().to_string().contains("chat-64"));
    }

    #[test]
    fn contenders_may_be_chosen() {
        let mut scenario = parse("mixed", MIXED).unwrap();
        assert!(scenario.is_for("litellm"));
        scenario.contenders = Some(vec!["direct".into()]);
        assert!(scenario.is_for("direct") && !scenario.is_for("litellm"));
    }
}
