//! Who shares a call where the backend pads.

use super::*;

fn long(n: u64, tokens: u32) -> Item {
    Item { tokens_in: tokens, longest: tokens, deadline: Time::from_millis(600_000 + n), ..item(n) }
}

fn padding(max_tokens: u32) -> Rig {
    let mut rig = Rig::new(ModelKind::Array, 1);
    rig.engine = Engine::new(EngineConfig { padded: true, max_items: 8, max_tokens, ..rig.engine.config });
    rig.step([beat("worker", 1, &[]), Event::IngressSeen(node("ingress"))]);
    rig
}

/// The batches in which these go, one after the other; between them it may wait for company.
fn rounds(rig: &mut Rig, items: Vec<Item>) -> Vec<Vec<u128>> {
    let mut sent = rig.deliver(items);
    let mut rounds = Vec::new();
    while !rig.is_empty() {
        let Some((batch, worker, ids)) = dispatches(&sent).pop() else {
            sent = rig.after(MS, []);
            continue;
        };
        let numbers: Vec<u64> = ids.iter().map(|id| *id as u64).collect();
        rounds.push(ids);
        sent = rig.after(MS, [done(&worker, batch, &numbers)]);
    }
    rounds
}

#[test]
fn neighbours_in_length_share_a_call_and_the_first_in_order_is_always_in_it() {
    let lengths = [10, 1_000, 11, 12, 2_000, 1_001];
    let items = lengths.iter().zip(1..).map(|(tokens, n)| long(n, *tokens)).collect();
    assert_eq!(rounds(&mut padding(4_000), items), [vec![4, 3, 1], vec![6, 2], vec![5]]);
}

#[test]
fn an_odd_length_goes_no_later_than_its_place_in_the_order() {
    let lengths = [10, 11, 2_000, 1_000, 10, 11, 1_000, 10];
    let items = lengths.iter().zip(1..).map(|(tokens, n)| long(n, *tokens)).collect();
    let rounds = rounds(&mut padding(4_000), items);
    assert!(rounds[..3].iter().any(|ids| ids.contains(&3)), "{rounds:?}");
}

#[test]
fn a_call_is_cut_by_padded_tokens() {
    let items = (1..=6).map(|n| Item { items: 2, longest: 400, ..long(n, 500) }).collect();
    let sizes: Vec<usize> = rounds(&mut padding(2_000), items).iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 2], "twice two inputs of 400 each, though each two hold 500 together");
}
