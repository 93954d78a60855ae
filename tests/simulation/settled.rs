//! core: what the owner of a batch was promised, and what the files say: each line once, in order, with its own outcome.

use crate::audit::Audit;
use crate::plan::Plan;
use crate::spec::Spec;
use crate::tries::Tries;
use bytes::Bytes;
use futures::FutureExt;
use serde_json::Value;
use shared::broker::memory::MemoryBroker;
use shared::broker::{Broker, Store};
use shared::domain::Token;
use shared::error::Code;
use shared::jobs::{Batch, BatchState, File, Written};
use std::rc::Rc;

/// One batch.
#[derive(Debug)]
pub(crate) struct Book {
    lines: Vec<Rc<Spec>>,
    known: Option<Batch>,
}

impl Audit {
    pub(crate) fn ordered(&mut self, id: &Token, lines: Vec<Rc<Spec>>) {
        self.lines.extend(lines.iter().map(|spec| (spec.id, Rc::clone(spec))));
        self.batches.insert(id.clone(), Book { lines, known: None });
    }

    pub(crate) fn has_ended(&self, id: &Token) -> bool {
        self.batches[id].has_ended()
    }

    /// A batch's record is written: it never goes back, and its end is for good.
    pub(crate) fn batch_changed(&mut self, batch: Batch) {
        let Some(book) = self.batches.get_mut(&batch.id) else { return };
        if let Some(known) = &book.known {
            let id = &batch.id;
            assert!(batch.settled >= known.settled, "{id} goes back from {} settled segments to {}", known.settled, batch.settled);
            assert!(!known.state.is_terminal() || *known == batch, "{id} ends twice: {known:?}, then {batch:?}");
        }
        book.known = Some(batch);
    }

    pub(crate) fn judge_batches(&self, broker: &MemoryBroker, plan: &Plan) {
        self.batches.values().for_each(|book| book.judge(broker, plan, &self.tries));
    }
}

impl Book {
    pub(crate) fn has_ended(&self) -> bool {
        self.known.as_ref().is_some_and(|batch| batch.state.is_terminal())
    }

    fn judge(&self, broker: &MemoryBroker, plan: &Plan, tries: &Tries) {
        let batch = self.known.as_ref().expect("a world at rest has no open batch");
        let (output, errors) = (lines(broker, batch.output.as_ref()), lines(broker, batch.errors.as_ref()));
        let counted = (batch.counts.completed, batch.counts.failed);
        assert_eq!(counted, (output.len() as u64, errors.len() as u64), "{batch:?} counts other lines than it has written");
        let mut seen: Vec<usize> = output.iter().chain(&errors).map(number).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..self.lines.len()).collect::<Vec<_>>(), "{} does not have each of its lines once", batch.id);
        for line in &output {
            let spec = &self.lines[number(line)];
            let body = line["response"]["body"].as_str().expect("an answer is text");
            spec.check_answer(&[Bytes::from(body.to_owned())]);
            assert!(!spec.guilty, "{} is answered, which nobody can", spec.id);
        }
        errors.iter().for_each(|line| self.check_failed(batch, line, plan, tries));
    }

    fn check_failed(&self, batch: &Batch, line: &Value, plan: &Plan, tries: &Tries) {
        let spec = &self.lines[number(line)];
        let code = line["error"]["code"].as_str().or_else(|| line["response"]["body"]["error"]["code"].as_str()).expect("a code");
        let is_fair = match Code::ALL.iter().find(|known| known.as_str() == code).expect("a code of ours") {
            Code::BatchCancelled => batch.state == BatchState::Cancelled,
            Code::BatchExpired | Code::DeadlineExceeded => !spec.patient,
            code => spec.is_fair_failure(*code, plan, tries),
        };
        assert!(is_fair, "{code} is no end for {spec:?}");
    }
}

fn number(line: &Value) -> usize {
    line["custom_id"].as_str().and_then(|name| name.parse().ok()).expect("the name of a line")
}

fn lines(broker: &MemoryBroker, written: Option<&Written>) -> Vec<Value> {
    let Some(Written { file, parts, .. }) = written else { return Vec::new() };
    let part = |n: u32| broker.blob_get(Store::Files, &File::part_key(file, n)).now_or_never().expect("the broker waits for nobody");
    let content: Vec<Bytes> =
        (0..*parts).map(|n| part(n).expect("it answers").unwrap_or_else(|| panic!("part {n} of {file} is not there"))).collect();
    let text = content.concat();
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a line of JSON"))
        .collect()
}
