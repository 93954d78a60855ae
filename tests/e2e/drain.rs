//! Promise: a process that is asked to end finishes what it runs, takes nothing new, and exits with 0.

use crate::harness::{Mill, Role, SOON, chat, prompt, tag, until};
use futures::future::join_all;
use loadtest::client::Client;

const CHAT: &str = "/v1/chat/completions";
const RUNNING: usize = 4;

/// Asks for generations that take long enough to be running when a signal comes; what went wrong with any of them.
async fn slow_answers(client: Client) -> Vec<String> {
    let asked = (0..RUNNING).map(|index| slow_answer(&client, index));
    join_all(asked).await.into_iter().filter_map(Result::err).collect()
}

async fn slow_answer(client: &Client, index: usize) -> Result<(), String> {
    let text = prompt(&format!("[[delay:1500]] drain {index}"));
    let answer = client.post(CHAT, chat("chat", &text)).await.map_err(|error| error.to_string())?;
    let is_right = answer.status == 200 && answer.text().contains(&tag(&text));
    is_right.then_some(()).ok_or_else(|| format!("{} {}", answer.status, answer.text()))
}

async fn all_run(mill: &Mill) {
    until("all requests run at the backend", SOON, async || mill.stats().await["running"] == RUNNING).await;
}

/// Asks until a request is refused; its status and code.
async fn refusal(client: &Client) -> (u16, String) {
    let mut refused = (0, String::new());
    until("new work is refused", SOON, async || {
        let answer = client.post(CHAT, chat("chat", &prompt("late"))).await.expect("the port stays open while work runs");
        refused = (answer.status, answer.code());
        answer.status != 200
    })
    .await;
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn running_work_finishes_and_new_work_is_refused() {
    let mut mill = Mill::up().start().await;
    let (running, late) = (mill.client(), mill.client());
    let (failed, refused) = tokio::join!(slow_answers(running), async {
        all_run(&mill).await;
        mill.terminate(Role::Up, 0);
        refusal(&late).await
    });
    assert_eq!(refused, (503, "draining".to_owned()));
    assert_eq!(failed, Vec::<String>::new());
    assert_eq!(mill.exit_code(Role::Up, 0, SOON).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_worker_and_a_scheduler_leave_without_an_error_to_anybody() {
    let mut mill = Mill::cluster(1, 2, 2).start().await;
    for role in [Role::Worker, Role::Scheduler] {
        let (failed, ()) = tokio::join!(slow_answers(mill.client()), async {
            all_run(&mill).await;
            mill.terminate(role, 0);
        });
        assert_eq!(failed, Vec::<String>::new(), "{role:?}");
        assert_eq!(mill.exit_code(role, 0, SOON).await, Some(0), "{role:?}");
        assert_eq!(slow_answers(mill.client()).await, Vec::<String>::new(), "after the {role:?} has left");
    }
}
