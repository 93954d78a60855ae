//! edge: takes up whatever waits in a queue, letting what is just arriving join, without a timer.

use tokio::sync::mpsc;
use tokio::task::yield_now;

/// Waits until something is in `queue` and moves up to `max` of it behind what `into` holds already. Returns how much
/// that is; 0 when the queue is closed and `into` is empty.
///
/// After the first message it steps back once, so that every task and socket that is ready at this moment is served
/// before: under load what they send joins this round, and an idle road loses a microsecond. Cancel-safe as long as
/// `into` is kept for the next call.
pub async fn gather<T>(queue: &mut mpsc::Receiver<T>, into: &mut Vec<T>, max: usize) -> usize {
    if into.is_empty() && queue.recv_many(into, max).await == 0 {
        return 0;
    }
    if into.len() < max {
        yield_now().await;
    }
    while into.len() < max
        && let Ok(message) = queue.try_recv()
    {
        into.push(message);
    }
    into.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_by_tasks_that_are_ready_joins_the_round() {
        let (sender, mut queue) = mpsc::channel(8);
        sender.send(1).await.unwrap();
        let late = sender.clone();
        let task = crate::task::spawn("late", async move { late.send(2).await.unwrap() });
        let mut round = Vec::new();
        assert_eq!(gather(&mut queue, &mut round, 8).await, 2);
        assert_eq!(round, [1, 2]);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_cancelled_round_keeps_what_it_had() {
        let (sender, mut queue) = mpsc::channel(8);
        sender.send(1).await.unwrap();
        let mut round = Vec::new();
        tokio::select! {
            biased;
            _ = gather(&mut queue, &mut round, 8) => unreachable!("it steps back first"),
            () = async {} => {}
        }
        assert_eq!(gather(&mut queue, &mut round, 8).await, 1);
        drop(sender);
        round.clear();
        assert_eq!(gather(&mut queue, &mut round, 8).await, 0);
    }
}
