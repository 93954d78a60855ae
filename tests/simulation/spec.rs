//! core: what somebody asked, what answers it, and how it may fail.

use crate::plan::Plan;
use crate::tries::Tries;
use bytes::Bytes;
use shared::clock::Time;
use shared::domain::{ExecId, Lane, RequestId, Token};
use shared::error::Code;
use std::time::Duration;

/// What somebody asked.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) id: RequestId,
    pub(crate) tenant: usize,
    pub(crate) lane: Lane,
    pub(crate) tokens_in: u32,
    pub(crate) tokens_out: u32,
    pub(crate) compat: u64,
    pub(crate) ingress: usize,
    pub(crate) deadline: Time,
    /// Its deadline lies beyond the end of the world: only an answer will do.
    pub(crate) patient: bool,
    pub(crate) stream: bool,
    /// It spoils every call that it is in.
    pub(crate) guilty: bool,
    /// It kills every worker that runs it.
    pub(crate) deadly: bool,
    /// When its caller leaves, or cancels it.
    pub(crate) leaves: Option<Duration>,
}

impl Spec {
    /// What only it asks: an answer shows whose it is.
    pub(crate) fn prompt(&self) -> Bytes {
        format!("\"what is {}\"", self.id).into()
    }

    /// The name of the job that runs it.
    pub(crate) fn job(&self) -> Token {
        Token::parse(&format!("job_{}", self.id.0.simple())).expect("hexadecimal digits are a token")
    }

    /// Whether the world's plan and what its calls came to allow that it fails so.
    pub(crate) fn is_fair_failure(&self, code: Code, plan: &Plan, tries: &Tries) -> bool {
        let (troubled, deferred) = (!plan.faults.are_none() || plan.deadly > 0, self.lane.is_deferred());
        match code {
            Code::DeadlineExceeded => !self.patient,
            Code::StreamInterrupted => self.stream && (troubled || self.guilty || plan.fails()),
            Code::Poison => deferred && troubled,
            Code::Lost => !deferred && plan.deadly > 0,
            _ => tries.allow(self, code),
        }
    }

    /// # Panics
    /// When this is not the one answer of one execution to this request.
    pub(crate) fn check_answer(&self, parts: &[Bytes]) {
        let (mut exec, mut echoed) = (None, Vec::new());
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let text = std::str::from_utf8(part).expect("an answer is text");
            let (from, piece) = text.split_once('|').expect("a part of an answer");
            assert_eq!(*exec.get_or_insert(from), from, "{} is answered by two executions", self.id);
            echoed.extend_from_slice(piece.as_bytes());
        }
        assert_eq!(Bytes::from(echoed), self.prompt(), "{} gets an answer that is not its own", self.id);
    }
}

/// A piece of the answer that an execution gives.
pub(crate) fn piece(exec: ExecId, of: &[u8]) -> Bytes {
    [format!("{exec:?}|").as_bytes(), of].concat().into()
}

/// A whole answer, as it is put on record.
pub(crate) fn whole(exec: ExecId, of: &[u8]) -> Bytes {
    let text = String::from_utf8(piece(exec, of).to_vec()).expect("an answer is text");
    serde_json::to_vec(&text).expect("text is JSON").into()
}
