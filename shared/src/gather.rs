//! edge: takes up whatever waits in a queue, letting what is just arriving join where that pays, without a timer.

use tokio::sync::mpsc;
use tokio::task::yield_now;

/// For how many rounds one that grew by waiting vouches.
const VOUCHED: u32 = 8;

/// Every so many rounds it is tried again whether waiting pays.
const TRIED_EVERY: u32 = 16;

/// Takes rounds from a queue.
///
/// After the first message of a round it steps back once, so that every task and socket that is ready at this moment is
/// served before: under load what they send joins the round. Where that has gained nothing lately, as for a lone
/// caller, it is left out, for it costs a turn of the scheduler.
#[derive(Debug, Default)]
pub struct Gather {
    /// Rounds for which stepping back is still believed to pay.
    vouched: u32,
    rounds: u32,
}

impl Gather {
    /// Waits until something is in `queue` and moves up to `max` of it behind what `into` holds already. Returns how much
    /// that is; 0 when the queue is closed and `into` is empty. Cancel-safe as long as `into` is kept for the next call.
    pub async fn round<T>(&mut self, queue: &mut mpsc::Receiver<T>, into: &mut Vec<T>, max: usize) -> usize {
        if into.is_empty() && queue.recv_many(into, max).await == 0 {
            return 0;
        }
        if into.len() < max && self.promises() {
            let before = into.len();
            yield_now().await;
            while into.len() < max
                && let Ok(message) = queue.try_recv()
            {
                into.push(message);
            }
            self.learn(into.len() > before);
        }
        into.len()
    }

    fn promises(&mut self) -> bool {
        self.rounds = self.rounds.wrapping_add(1);
        self.vouched > 0 || self.rounds.is_multiple_of(TRIED_EVERY)
    }

    fn learn(&mut self, grew: bool) {
        self.vouched = if grew { VOUCHED } else { self.vouched.saturating_sub(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hopeful() -> Gather {
        Gather { vouched: VOUCHED, rounds: 0 }
    }

    #[tokio::test]
    async fn what_is_sent_by_tasks_that_are_ready_joins_the_round() {
        let (sender, mut queue) = mpsc::channel(8);
        sender.send(1).await.unwrap();
        let late = sender.clone();
        let task = crate::task::spawn("late", async move { late.send(2).await.unwrap() });
        let mut round = Vec::new();
        assert_eq!(hopeful().round(&mut queue, &mut round, 8).await, 2);
        assert_eq!(round, [1, 2]);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_cancelled_round_keeps_what_it_had() {
        let (sender, mut queue) = mpsc::channel(8);
        sender.send(1).await.unwrap();
        let (mut gather, mut round) = (hopeful(), Vec::new());
        tokio::select! {
            biased;
            _ = gather.round(&mut queue, &mut round, 8) => unreachable!("it steps back first"),
            () = async {} => {}
        }
        assert_eq!(gather.round(&mut queue, &mut round, 8).await, 1);
        drop(sender);
        round.clear();
        assert_eq!(gather.round(&mut queue, &mut round, 8).await, 0);
    }

    #[tokio::test]
    async fn stepping_back_is_given_up_where_it_gains_nothing_and_taken_up_where_it_does() {
        let (sender, mut queue) = mpsc::channel(8);
        let (mut gather, mut round) = (hopeful(), Vec::new());
        for _ in 0..VOUCHED {
            assert!(gather.vouched > 0);
            sender.send(1).await.unwrap();
            gather.round(&mut queue, &mut round, 8).await;
            round.clear();
        }
        assert_eq!(gather.vouched, 0);
        while gather.vouched == 0 {
            sender.send(1).await.unwrap();
            let late = sender.clone();
            let task = crate::task::spawn("late", async move { late.send(2).await.unwrap() });
            gather.round(&mut queue, &mut round, 8).await;
            task.await.unwrap();
            while queue.try_recv().is_ok() {}
            round.clear();
            assert!(gather.rounds <= 2 * TRIED_EVERY);
        }
    }
}
