//! A nats-server of our own: found, started, stopped, and gone when we are.

use super::{SOON, program, start};
use shared::broker::nats::child::{ChildError, NatsServer, version};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// Waits until nobody accepts connections at `url` any more.
async fn gone(url: &str) {
    let address = url.trim_start_matches("nats://").to_owned();
    let refused = async {
        while TcpStream::connect(&address).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, refused).await.expect("the server is gone in time");
}

#[tokio::test]
async fn it_ends_when_stopped_and_when_dropped() {
    let (server, _folder) = start().await;
    let url = server.url().to_owned();
    server.stop().await;
    gone(&url).await;
    let (server, _folder) = start().await;
    let url = server.url().to_owned();
    drop(server);
    gone(&url).await;
}

#[tokio::test]
async fn two_servers_never_share_a_store() {
    let (server, folder) = start().await;
    let second = NatsServer::start(&program(), folder.path(), None).await;
    assert!(matches!(second, Err(ChildError::InUse(_))), "{second:?}");
    server.stop().await;
    NatsServer::start(&program(), folder.path(), None).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_with_the_log() {
    let (server, _folder) = start().await;
    let elsewhere = TempDir::new().unwrap();
    let second = NatsServer::start(&program(), elsewhere.path(), Some(server.port())).await;
    let Err(ChildError::NotStarted(log)) = second else { panic!("{second:?}") };
    assert!(std::fs::read_to_string(log).unwrap().contains("address already in use"));
}

#[tokio::test]
async fn what_is_not_a_server_is_refused() {
    for program in ["/bin/true", "/nowhere/nats-server"] {
        let refused = version(Path::new(program)).await;
        assert!(matches!(refused, Err(ChildError::NotAServer(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn it_does_not_outlive_a_parent_that_is_killed() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "process::a_parent_for_the_test_above", "--ignored", "--nocapture"]);
    let mut parent = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let url = loop {
        let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().expect("the parent names its server");
        if let Some((_, url)) = line.split_once("serving ") {
            break url.to_owned();
        }
    };
    parent.kill().await.unwrap();
    gone(&url).await;
}

#[tokio::test]
#[ignore = "started by the test above"]
#[expect(clippy::print_stdout, reason = "how the test above learns the address")]
async fn a_parent_for_the_test_above() {
    let (server, _folder) = start().await;
    println!("serving {}", server.url());
    std::future::pending::<()>().await;
}
