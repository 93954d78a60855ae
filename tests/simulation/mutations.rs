//! core: bugs planted where the roles' decisions are performed, one at a time, and the proof that the simulation finds each. The product
//! itself carries nothing for it.

use crate::live;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Worlds within which a planted bug must show.
const SEEDS: u64 = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A deferred frame goes when a worker has accepted what is in it.
    AckedWhenAccepted,
    /// A worker says that a deferred request has ended before its outcome is on record.
    DoneBeforeRecorded,
    /// Nobody looks after jobs that their lane has forgotten.
    JobsForgotten,
    /// A request that nobody names is not published again.
    LostNotPublished,
    /// The last outcome of a job counts, and not its first.
    LastOutcomeCounts,
    /// Workers announce and take twice what their backends do.
    CreditDoubled,
    /// The bodies of a batch of requests are cut in another order than they lie.
    BodiesCrossed,
    /// The time that a request has waited in its lane is not taken from its deadline.
    DeadlineBegunAnew,
    /// What leaves the engine without having run keeps its reservation, which is renewed for ever.
    ReservationsKept,
    /// A caller gets the parts of whichever execution speaks.
    AnyExecutionHeard,
    /// What a worker gives back is heard as an end, and not tried again.
    ReturnedDropped,
    /// What one worker gives back counts as given back by whoever else has it.
    ReturnedByAll,
}

fn finds(mutation: Mutation) {
    let ends_badly = |seed: &u64| catch_unwind(AssertUnwindSafe(|| live(*seed, Some(mutation), false))).is_err();
    let found = (0..SEEDS).find(ends_badly);
    assert!(found.is_some(), "{mutation:?} is not found in {SEEDS} worlds");
}

macro_rules! planted {
    ($($name:ident = $mutation:ident;)*) => {
        $(#[test]
        fn $name() {
            finds(Mutation::$mutation);
        })*
    };
}

planted! {
    an_ack_on_acceptance_is_found = AckedWhenAccepted;
    an_end_told_before_its_record_is_found = DoneBeforeRecorded;
    a_sweeper_that_sleeps_is_found = JobsForgotten;
    an_ingress_that_gives_up_is_found = LostNotPublished;
    an_outcome_overwritten_is_found = LastOutcomeCounts;
    credit_beyond_the_backend_is_found = CreditDoubled;
    an_answer_to_the_wrong_caller_is_found = BodiesCrossed;
    a_deadline_begun_anew_is_found = DeadlineBegunAnew;
    a_reservation_that_stays_is_found = ReservationsKept;
    an_answer_of_two_executions_is_found = AnyExecutionHeard;
    a_returned_request_that_is_dropped_is_found = ReturnedDropped;
    a_returned_request_sent_though_another_has_it_is_found = ReturnedByAll;
}
