//! core: what is measured: the hot pieces of one request's road, each on inputs that never change.

mod backend;
mod engine;
mod identity;
mod ingress;
mod samples;
mod wire;

use crate::meter::Meter;

/// One measurement. The name is its key among the recorded counts: lower case, no spaces.
pub(crate) struct Case {
    pub(crate) name: String,
    run: Box<dyn Fn(&mut Meter) + Sync>,
}

impl Case {
    fn new(name: impl Into<String>, run: impl Fn(&mut Meter) + Sync + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }

    pub(crate) fn run(&self, meter: &mut Meter) {
        (self.run)(meter);
    }
}

/// All cases, in the order of the road.
pub(crate) fn all() -> Vec<Case> {
    [identity::cases(), ingress::cases(), wire::cases(), engine::cases(), backend::cases()].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_runs_and_has_a_name_of_its_own() {
        let cases = all();
        cases.iter().for_each(|case| case.run(&mut Meter::Try));
        assert_eq!(cases.iter().map(|case| &case.name).collect::<BTreeSet<_>>().len(), cases.len());
        assert!(cases.iter().all(|case| !case.name.contains(char::is_whitespace)));
    }
}
