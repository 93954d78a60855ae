//! core: the things that grow: their values, and the scenario at each.

use crate::backend;
use crate::contender::{Contender, extra_model};
use crate::scenario::{Arrival, Kind, Scenario};
use crate::work::Mode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// In closed loops of chat.
    Callers,
    /// Chats a second in an open loop.
    Rate,
    /// Configured, and asking in turn.
    Tenants,
    /// Configured, and asked in turn.
    Models,
    /// Open at the same time.
    Streams,
}

pub const ALL: [Axis; 5] = [Axis::Callers, Axis::Rate, Axis::Tenants, Axis::Models, Axis::Streams];

/// Callers where something else grows: enough to share frames, too few to hide what one request costs.
const CALLERS: usize = 16;
/// Connections of an open loop: enough that the rate, not they, is the limit.
const CONNECTIONS: usize = 256;
/// Bytes of a prompt: as in the comparison.
const PROMPT_BYTES: usize = 400;
const WARM_UP_SECONDS: f64 = 0.5;
/// A slow stream's whole time.
const STREAM_SECONDS: f64 = 6.0 * backend::SLOW_GAP.as_millis() as f64 / 1e3;
/// Streams before the count begins. Streams that began together end together: a window of whole streams, opened in the
/// middle of one, holds as many ends as beginnings. Three leave time for connections that had to be asked for twice.
const STREAM_WARM_UP: f64 = 3.5;

impl Axis {
    pub const fn values(self) -> &'static [usize] {
        match self {
            Self::Callers => &[1, 4, 16, 64, 256],
            Self::Rate => &[250, 500, 1_000, 2_000, 4_000, 8_000, 12_000],
            Self::Tenants => &[1, 10, 100, 1_000, 10_000],
            Self::Models => &[1, 10, 50, 200],
            Self::Streams => &[1, 16, 128, 500, 1_000, 2_000],
        }
    }

    /// How the axis of a plot is called.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Callers => "callers in closed loops",
            Self::Rate => "offered load, requests/s",
            Self::Tenants => "tenants",
            Self::Models => "models",
            Self::Streams => "open streams",
        }
    }

    /// Peers have neither tenants nor many models to configure alike.
    pub const fn is_for(self, contender: Contender) -> bool {
        matches!(contender, Contender::Tidemill(_)) || matches!(self, Self::Callers | Self::Rate | Self::Streams)
    }

    /// How many tenants are configured.
    pub const fn tenants(self, at: usize) -> usize {
        if matches!(self, Self::Tenants) { at } else { 1 }
    }

    /// How many extra models are configured.
    pub const fn models(self, at: usize) -> usize {
        if matches!(self, Self::Models) { at } else { 0 }
    }

    pub fn scenario(self, at: usize, seconds: f64) -> Scenario {
        let arrival = match self {
            Self::Callers | Self::Streams => Arrival::Closed { callers: at },
            Self::Rate => Arrival::Open { rate: at as f64, connections: CONNECTIONS },
            Self::Tenants | Self::Models => Arrival::Closed { callers: CALLERS },
        };
        let (warm_up_seconds, seconds) = match self {
            Self::Streams => (STREAM_WARM_UP * STREAM_SECONDS, (seconds / STREAM_SECONDS).ceil() * STREAM_SECONDS),
            Self::Callers | Self::Rate | Self::Tenants | Self::Models => (WARM_UP_SECONDS, seconds),
        };
        Scenario {
            name: format!("{self}-{at}"),
            about: format!("{at} {}", self.label()),
            arrival,
            mix: self.mix(at),
            seconds,
            warm_up_seconds,
            tenants: self.tenants(at),
            headers: BTreeMap::new(),
            model: None,
            contenders: None,
        }
    }

    fn mix(self, at: usize) -> Vec<Kind> {
        let kind = |mode, model: String| Kind { mode, model, share: 1, inputs: 1, lengths: vec![PROMPT_BYTES] };
        match self {
            Self::Callers | Self::Rate | Self::Tenants => vec![kind(Mode::Chat, backend::CHAT.into())],
            Self::Models => (0..at).map(|index| kind(Mode::Chat, extra_model(index))).collect(),
            Self::Streams => vec![kind(Mode::Stream, backend::SLOW_CHAT.into())],
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Callers => "callers",
            Self::Rate => "rate",
            Self::Tenants => "tenants",
            Self::Models => "models",
            Self::Streams => "streams",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_the_axis_grows() {
        let scenario = Axis::Tenants.scenario(10_000, 1.0);
        assert_eq!((scenario.tenants, scenario.mix.len()), (10_000, 1));
        let scenario = Axis::Models.scenario(200, 1.0);
        assert_eq!((scenario.tenants, scenario.mix.len()), (1, 200));
        assert!(matches!(Axis::Rate.scenario(500, 1.0).arrival, Arrival::Open { rate, .. } if (rate - 500.0).abs() < 1e-9));
    }

    #[test]
    fn a_window_holds_whole_streams() {
        let scenario = Axis::Streams.scenario(16, 2.0);
        assert!((scenario.seconds - 2.4).abs() < 1e-9 && (scenario.warm_up_seconds - 4.2).abs() < 1e-9);
    }

    #[test]
    fn values_grow() {
        assert!(ALL.iter().all(|axis| axis.values().is_sorted() && axis.values().len() > 3));
    }
}
