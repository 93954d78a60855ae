//! edge: checks of the journal of results: two levels, nothing goes by itself, what was read is erased.

use super::{MOMENT, Pair};
use crate::broker::limits::RESULT_BYTES_MAX;
use crate::broker::{Broker, BrokerError, Feed, Follower, Journal, Since, Topic};
use crate::domain::Token;
use bytes::Bytes;

fn job(name: &str) -> Token {
    Token::parse(name).expect("a token")
}

fn part(of: &str, number: &str) -> Topic {
    Topic::of(&[&job(of), &job(number)])
}

async fn append(broker: &dyn Broker, topic: &Topic, text: &str) -> u64 {
    let id = format!("{topic}-{text}");
    broker.append(Journal::Results, topic, &id, Bytes::from(text.to_owned())).await.expect("appended")
}

async fn follow(pair: &Pair, topic: Topic, since: Since) -> Box<dyn Follower> {
    pair.other.follow(&Feed::Journal(Journal::Results, Some(topic)), since).await.expect("a reader")
}

/// Keys and texts of the next entries, as many as are there now.
async fn read(follower: &mut Box<dyn Follower>) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(entry) = follower.next(MOMENT).await.expect("an answer") {
        let text = entry.value.expect("an entry has a value");
        all.push(format!("{} {}", entry.key, String::from_utf8_lossy(&text)));
    }
    all
}

async fn read_all(pair: &Pair, topic: Topic) -> Vec<String> {
    read(&mut follow(pair, topic, Since::Start).await).await
}

pub(super) async fn a_job_is_read_with_all_its_parts_and_a_part_alone(pair: Pair) {
    for (number, text) in [("1", "a"), ("0", "b"), ("1", "c")] {
        append(&*pair.one, &part("parts", number), text).await;
    }
    append(&*pair.one, &part("parts-other", "1"), "x").await;
    assert_eq!(read_all(&pair, job("parts").into()).await, ["parts.1 a", "parts.0 b", "parts.1 c"]);
    assert_eq!(read_all(&pair, part("parts", "1")).await, ["parts.1 a", "parts.1 c"]);
    assert!(read_all(&pair, part("parts", "2")).await.is_empty());
}

pub(super) async fn a_reader_from_now_on_hears_nothing_from_before(pair: Pair) {
    append(&*pair.one, &part("now", "0"), "before").await;
    let mut follower = follow(&pair, job("now").into(), Since::Now).await;
    append(&*pair.one, &part("now", "0"), "after").await;
    assert_eq!(read(&mut follower).await, ["now.0 after"]);
}

pub(super) async fn what_is_erased_is_gone_and_the_rest_is_not(pair: Pair) {
    for (name, number) in [("erase", "0"), ("erase", "1"), ("erase-other", "0")] {
        append(&*pair.one, &part(name, number), "x").await;
    }
    let mut follower = follow(&pair, job("erase").into(), Since::Start).await;
    assert_eq!(read(&mut follower).await.len(), 2);
    pair.other.erase(Journal::Results, &part("erase", "0"), None).await.expect("erased");
    assert_eq!(read_all(&pair, job("erase").into()).await, ["erase.1 x"]);
    pair.one.erase(Journal::Results, &job("erase").into(), None).await.expect("erased");
    assert!(read_all(&pair, job("erase").into()).await.is_empty());
    assert_eq!(read_all(&pair, job("erase-other").into()).await, ["erase-other.0 x"]);
    append(&*pair.one, &part("erase", "1"), "y").await;
    assert_eq!(read(&mut follower).await, ["erase.1 y"], "a reader goes on behind what was erased");
    assert_eq!(pair.one.erase(Journal::Results, &job("never-there").into(), None).await, Ok(()));
}

pub(super) async fn what_was_added_later_outlives_an_erasure_as_far_as_a_position(pair: Pair) {
    append(&*pair.one, &part("through", "0"), "a").await;
    let last = append(&*pair.one, &part("through", "1"), "b").await;
    append(&*pair.other, &part("through", "0"), "c").await;
    pair.one.erase(Journal::Results, &job("through").into(), Some(last)).await.expect("erased");
    assert_eq!(read_all(&pair, job("through").into()).await, ["through.0 c"]);
}

pub(super) async fn only_results_are_erased(pair: Pair) {
    for journal in [Journal::Usage, Journal::Audit, Journal::Dead] {
        let erased = pair.one.erase(journal, &job("kept").into(), None).await;
        assert!(matches!(erased, Err(BrokerError::Unfit(_))), "{erased:?}");
    }
}

pub(super) async fn an_entry_that_does_not_fit_its_journal_is_refused(pair: Pair) {
    let append = async |topic: Topic, bytes| pair.one.append(Journal::Results, &topic, "unfit", Bytes::from(vec![0; bytes])).await;
    assert!(matches!(append(job("unfit").into(), 1).await, Err(BrokerError::Unfit(_))));
    assert_eq!(append(part("unfit", "0"), RESULT_BYTES_MAX + 1).await, Err(BrokerError::TooLarge));
    append(part("unfit", "0"), RESULT_BYTES_MAX).await.expect("as large as may be");
    let deep = pair.one.append(Journal::Dead, &part("unfit", "0"), "deep", Bytes::new()).await;
    assert!(matches!(deep, Err(BrokerError::Unfit(_))), "{deep:?}");
}

/// Under the limits of [`super::cramped`].
pub(super) async fn full_results_refuse_until_some_are_erased(pair: Pair) {
    let large = Bytes::from(vec![7; 300 * 1024]);
    let append = async |of: &str| pair.one.append(Journal::Results, &part(of, "0"), of, large.clone()).await;
    append("first").await.expect("stored");
    assert_eq!(append("second").await, Err(BrokerError::Full));
    pair.other.erase(Journal::Results, &job("first").into(), None).await.expect("erased");
    append("second").await.expect("what was refused is not remembered as stored");
}

/// Under the limits of [`super::cramped`].
pub(super) async fn the_oldest_dead_letter_makes_room(pair: Pair) {
    let large = Bytes::from(vec![7; 300 * 1024]);
    for id in ["1", "2"] {
        pair.one.append(Journal::Dead, &job("tenant").into(), id, large.clone()).await.expect("stored");
    }
    let mut follower = pair.other.follow(&Feed::Journal(Journal::Dead, None), Since::Start).await.expect("a reader");
    let entry = follower.next(MOMENT).await.expect("an answer").expect("the second");
    assert_eq!((entry.sequence, entry.more), (2, false));
}
