//! edge: what every broker must do, as one suite of checks that both edges pass. Used by tests only.
//!
//! The checks run at once, each on models and keys of its own, because several of them wait for an ack wait or a lease
//! to run out.

mod acks;
mod blobs;
mod feeds;
mod lanes;
mod posts;
mod records;
mod results;

use super::limits::{LaneLimits, Limits};
use super::{Broker, BrokerError, Delivery, LaneFilter, LaneSubject, Puller, Stored};
use crate::domain::{Lane, Token};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// The cap per origin under which the suite runs: small, so that a lane fills quickly.
pub const FRAMES_PER_ORIGIN_MAX: usize = 8;

/// The limits under which the suite runs.
pub fn limits() -> Limits {
    let defaults = Limits::default();
    let small = |lane: LaneLimits| LaneLimits { frames_per_origin_max: FRAMES_PER_ORIGIN_MAX, ..lane };
    Limits { interactive: small(defaults.interactive), deferred: small(defaults.deferred), ..defaults }
}

/// Limits under which one large entry or blob fills its place.
pub fn cramped() -> Limits {
    let bytes_max = 512 * 1024;
    Limits {
        claims_bytes_max: bytes_max,
        files_bytes_max: bytes_max,
        results_bytes_max: bytes_max,
        dead_bytes_max: bytes_max,
        ..Limits::default()
    }
}

/// Two handles to one broker, as two processes would have them.
#[derive(Clone)]
pub struct Pair {
    pub one: Arc<dyn Broker>,
    pub other: Arc<dyn Broker>,
}

type Check = (&'static str, fn(Pair) -> BoxFuture<'static, ()>);

macro_rules! checks {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((stringify!($name), |pair| $module::$name(pair).boxed())),*]
    };
}

const CHECKS: &[Check] = checks![
    lanes::what_is_published_is_pulled_and_gone_when_acked,
    lanes::frames_come_in_order,
    lanes::the_same_message_id_is_stored_once,
    lanes::a_full_origin_leaves_room_for_others,
    lanes::lanes_models_and_parts_are_apart,
    lanes::a_frame_over_the_limit_is_too_large,
    lanes::a_waiting_pull_returns_when_something_comes,
    lanes::an_empty_lane_ends_the_wait_with_nothing,
    lanes::no_more_than_asked_for_is_returned,
    lanes::a_cancelled_pull_loses_nothing,
    lanes::a_reader_that_left_takes_nothing_along,
    lanes::two_readers_share_the_deliveries,
    lanes::publisher_and_reader_agree_on_the_epoch,
    lanes::the_position_is_the_last_sequence_delivered,
    lanes::what_no_reader_has_had_is_soon_counted,
    acks::an_unacked_frame_comes_back_as_the_same,
    acks::what_comes_back_goes_before_what_is_new,
    acks::another_handle_may_renew_and_ack,
    acks::a_frame_given_back_waits_its_delay,
    acks::a_verified_ack_is_final,
    acks::a_token_of_nothing_is_gone,
    acks::a_frame_is_held_until_it_is_acked,
    posts::posts_come_in_order,
    posts::a_post_that_nobody_hears_is_no_error,
    posts::a_listener_hears_what_is_sent_after_it_listened,
    posts::every_listener_hears,
    posts::an_attached_listener_is_called_in_order_until_it_is_let_go,
    posts::a_node_hears_each_post_of_its_own_process_and_of_others_once_and_in_order,
    posts::a_post_over_the_limit_is_too_large,
    records::a_record_is_created_once,
    records::an_update_needs_the_current_revision,
    records::a_deleted_record_can_be_made_again,
    records::a_lease_expires_and_its_revisions_keep_growing,
    records::one_of_many_creators_wins,
    feeds::a_topic_is_read_in_order_and_by_everybody,
    feeds::the_same_entry_is_appended_once,
    feeds::a_reader_hears_what_is_appended_later,
    feeds::a_reader_may_begin_at_a_time,
    feeds::all_topics_are_read_in_order,
    feeds::followed_records_begin_with_their_present_state,
    feeds::followed_jobs_and_files_are_apart,
    feeds::records_may_be_followed_from_now_on,
    feeds::a_long_list_is_read_to_its_end_without_waiting,
    feeds::the_records_of_one_owner_are_followed_apart,
    results::a_job_is_read_with_all_its_parts_and_a_part_alone,
    results::a_reader_from_now_on_hears_nothing_from_before,
    results::what_is_erased_is_gone_and_the_rest_is_not,
    results::what_was_added_later_outlives_an_erasure_as_far_as_a_position,
    results::only_results_are_erased,
    results::an_entry_that_does_not_fit_its_journal_is_refused,
    blobs::a_blob_is_read_as_it_was_written,
    blobs::a_blob_may_be_written_again,
    blobs::stores_are_apart,
    blobs::a_missing_blob_is_none,
];

/// Runs every check.
///
/// # Panics
/// With the names of the checks that failed.
pub async fn run(pair: &Pair) {
    run_all(pair, CHECKS).await;
}

/// The checks of what is full, on a broker of its own under the limits of [`cramped`].
///
/// # Panics
/// With the names of the checks that failed.
pub async fn run_cramped(pair: &Pair) {
    let checks: &[Check] = checks![
        blobs::a_full_store_refuses_until_a_blob_goes,
        results::full_results_refuse_until_some_are_erased,
        results::the_oldest_dead_letter_makes_room,
    ];
    run_all(pair, checks).await;
}

/// The checks that take longer than an ack wait of the deferred lanes: for brokers whose time can be paused.
///
/// # Panics
/// With the names of the checks that failed.
pub async fn run_slow(pair: &Pair) {
    run_all(pair, checks![acks::a_deferred_frame_stays_out_longer, lanes::a_message_id_is_forgotten_after_two_minutes]).await;
}

async fn run_all(pair: &Pair, checks: &[Check]) {
    let runs = checks.iter().map(|(name, check)| async move {
        let ended = AssertUnwindSafe(check(pair.clone())).catch_unwind().await;
        ended.is_err().then_some(*name)
    });
    let failed: Vec<_> = join_all(runs).await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "the broker breaks its contract: {failed:?}");
}

/// Long enough for anything that is going to come.
const SOON: Duration = Duration::from_secs(8);

/// Long enough to see that nothing comes.
const MOMENT: Duration = Duration::from_millis(300);

/// One model of one check in one lane.
struct Road {
    pair: Pair,
    filter: LaneFilter,
}

impl Road {
    fn new(pair: &Pair, lane: Lane, model: &str) -> Self {
        Self { pair: pair.clone(), filter: LaneFilter { lane, model: Token::of_model(model), part: 0 } }
    }

    fn from(&self, origin: &str) -> LaneSubject {
        let LaneFilter { lane, model, part } = self.filter.clone();
        LaneSubject { lane, model, part, origin: Token::parse(origin).expect("a token") }
    }

    /// Publishes a frame that holds its own message id.
    async fn try_publish(&self, origin: &str, text: &str) -> Result<Stored, BrokerError> {
        let id = format!("{}-{origin}-{text}", self.filter.model);
        self.pair.one.publish(&self.from(origin), &id, Bytes::from(text.to_owned())).await
    }

    async fn publish(&self, text: &str) -> Stored {
        self.try_publish("origin", text).await.expect("stored")
    }

    async fn publish_all(&self, texts: &[&str]) {
        for text in texts {
            self.publish(text).await;
        }
    }

    async fn puller(&self) -> Box<dyn Puller> {
        self.pair.other.puller(&self.filter).await.expect("a reader")
    }
}

async fn pull(puller: &mut Box<dyn Puller>, max: usize, wait: Duration) -> Vec<Delivery> {
    puller.pull(max, wait).await.expect("deliveries")
}

/// Pulls until `count` frames have come.
async fn pull_all(puller: &mut Box<dyn Puller>, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let more = pull(puller, count - all.len(), SOON).await;
        assert!(!more.is_empty(), "{} of {count} came", all.len());
        all.extend(more);
    }
    all
}

async fn pull_one(puller: &mut Box<dyn Puller>) -> Delivery {
    pull_all(puller, 1).await.remove(0)
}

async fn assert_nothing_comes(puller: &mut Box<dyn Puller>) {
    let came = pull(puller, 1, MOMENT).await;
    assert!(came.is_empty(), "{came:?}");
}

fn texts(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|d| std::str::from_utf8(&d.frame).expect("text")).collect()
}
