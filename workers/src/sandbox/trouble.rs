//! core: what a prompt tells the sandbox to do wrong: `[[fault:hang]]`, `[[fault:status=503]]`, `[[delay:250]]`.

use super::request::Rejected;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use shared::config::Fault;
use std::time::Duration;

/// The longest delay a prompt may ask for: no deadline is longer.
const DELAY_MS_MAX: u64 = 3_600_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) fault: Option<Fault>,
    pub(crate) delay: Duration,
}

impl Trouble {
    /// Adds what `text` tells: the first fault counts, the longest delay.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), Rejected> {
        for directive in text.split("[[").skip(1).filter_map(|rest| rest.split_once("]]")) {
            match directive.0.split_once(':') {
                Some(("fault", name)) => self.fault = Some(self.fault.unwrap_or(fault(name)?)),
                Some(("delay", ms)) => self.delay = self.delay.max(delay(ms)?),
                _ => {}
            }
        }
        Ok(())
    }
}

fn fault(name: &str) -> Result<Fault, Rejected> {
    let unknown =
        || Rejected::new("a [[fault:…]] is one of status=400…599, hang, slow_drip, reset, malformed_json, wrong_count, partial_stream");
    if let Some(status) = name.strip_prefix("status=") {
        let status = status.parse().ok().filter(|status| (400..600).contains(status));
        return status.map(Fault::Status).ok_or_else(unknown);
    }
    let name: StrDeserializer<'_, Error> = name.into_deserializer();
    Fault::deserialize(name).map_err(|_| unknown())
}

fn delay(ms: &str) -> Result<Duration, Rejected> {
    let ms = ms.parse().ok().filter(|ms| *ms <= DELAY_MS_MAX);
    ms.map(Duration::from_millis).ok_or_else(|| Rejected::new("a [[delay:…]] is a whole number of milliseconds, at most 3600000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Option<Fault>, u128), Rejected> {
        let mut trouble = Trouble::default();
        trouble.read(text)?;
        Ok((trouble.fault, trouble.delay.as_millis()))
    }

    #[test]
    fn every_fault_has_its_name() {
        let names = [
            ("status=503", Fault::Status(503)),
            ("hang", Fault::Hang),
            ("slow_drip", Fault::SlowDrip),
            ("reset", Fault::Reset),
            ("malformed_json", Fault::MalformedJson),
            ("wrong_count", Fault::WrongCount),
            ("partial_stream", Fault::PartialStream),
        ];
        for (name, fault) in names {
            assert_eq!(read(&format!("x [[fault:{name}]] y")), Ok((Some(fault), 0)));
        }
    }

    #[test]
    fn directives_stand_beside_each_other_and_beside_other_brackets() {
        assert_eq!(read("[[a]] [[b:c]] [[delay:7]][[fault:hang]][[delay:9]][[fault:reset]] [["), Ok((Some(Fault::Hang), 9)));
        assert_eq!(read("nothing [ [fault:hang] ]"), Ok((None, 0)));
    }

    #[test]
    fn a_directive_that_means_nothing_is_refused() {
        for bad in ["[[fault:hung]]", "[[fault:status]]", "[[fault:status=200]]", "[[fault:]]", "[[delay:1.5]]", "[[delay:3600001]]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
