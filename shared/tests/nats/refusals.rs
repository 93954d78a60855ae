//! What the broker refuses, and what the server must refuse for it.

use super::{bytes, connect, filter, options, program, raw, start, subject};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use shared::broker::limits::{LaneLimits, Limits};
use shared::broker::nats::{NatsBroker, Options};
use shared::broker::{Broker, BrokerError};
use shared::domain::Lane::{Async, Interactive};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

async fn refused(url: &str) -> String {
    match NatsBroker::connect(url, options()).await {
        Err(BrokerError::Unfit(why)) => why,
        other => panic!("not refused: {:?}", other.map(|broker| broker.describe())),
    }
}

/// A peer that greets like a nats-server of some version and answers pings.
async fn greet_as(version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    shared::task::spawn("peer", async move {
        let (socket, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = socket.into_split();
        let info = format!("INFO {{\"version\":\"{version}\",\"max_payload\":1048576,\"headers\":true,\"jetstream\":true}}\r\n");
        writer.write_all(info.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.starts_with("PING") {
                writer.write_all(b"PONG\r\n").await.unwrap();
            }
        }
    });
    url
}

#[tokio::test]
async fn a_server_before_2_10() {
    let why = refused(&greet_as("2.9.10").await).await;
    assert!(why.contains("2.9.10") && why.contains("2.10.0"), "{why}");
}

#[tokio::test]
async fn an_address_where_nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://name:password@{}", listener.local_addr().unwrap());
    drop(listener);
    let Err(BrokerError::Unavailable(why)) = NatsBroker::connect(&url, options()).await else { panic!("not refused") };
    assert!(why.contains("nats://127.0.0.1") && !why.contains("password"), "{why}");
}

#[tokio::test]
async fn a_server_without_jetstream() {
    let folder = TempDir::new().unwrap();
    let mut command = tokio::process::Command::new(program());
    command.args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"]).arg(folder.path()).kill_on_drop(true);
    let _server = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let url = loop {
        let file = std::fs::read_dir(folder.path()).unwrap().flatten().next();
        let text = file.and_then(|file| std::fs::read_to_string(file.path()).ok()).unwrap_or_default();
        if let Some(url) = text.split('"').find(|part| part.starts_with("nats://")) {
            break url.to_owned();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let why = refused(&url).await;
    assert!(why.contains("-js"), "{why}");
}

#[tokio::test]
async fn a_stream_that_somebody_made_otherwise() {
    let (server, _folder) = start().await;
    let stream = Config { name: "QA".into(), subjects: vec!["q.a.>".into()], retention: RetentionPolicy::WorkQueue, ..Config::default() };
    raw(&server).await.create_stream(stream).await.unwrap();
    let why = refused(server.url()).await;
    assert!(why.contains("stream QA") && why.contains("discard Old where New is needed"), "{why}");
}

#[tokio::test]
async fn a_stream_whose_subjects_somebody_took() {
    let (server, _folder) = start().await;
    let stream = Config { name: "other".into(), subjects: vec!["q.>".into()], ..Config::default() };
    raw(&server).await.create_stream(stream).await.unwrap();
    let why = refused(server.url()).await;
    assert!(why.contains("stream QI cannot be made"), "{why}");
}

#[tokio::test]
async fn streams_that_the_server_has_no_room_for() {
    let (server, _folder) = start().await;
    let limits = Limits { files_bytes_max: 1 << 60, ..Limits::default() };
    let Err(BrokerError::Unfit(why)) = NatsBroker::connect(server.url(), Options { limits, ..Options::default() }).await.map(drop) else {
        panic!("not refused")
    };
    assert!(why.contains("tidemill_files") && why.contains("max_file_store") && why.contains("nats.max_bytes"), "{why}");
}

#[tokio::test]
async fn a_frame_past_the_cap_of_the_lane() {
    let (server, _folder) = start().await;
    let lane = LaneLimits { frames_max: 3, bytes_max: 64 * 1024, ..Limits::default().interactive };
    let limits = Limits { interactive: lane, ..Limits::default() };
    let broker = NatsBroker::connect(server.url(), Options { limits, ..Options::default() }).await.unwrap();
    let large = bytes::Bytes::from(vec![0; 60 * 1024]);
    broker.publish(&subject(Interactive, "a"), "1", large.clone()).await.unwrap();
    assert_eq!(broker.publish(&subject(Interactive, "b"), "2", large).await, Err(BrokerError::Full), "by bytes");
    for id in ["3", "4"] {
        broker.publish(&subject(Interactive, id), id, bytes("x")).await.unwrap();
    }
    assert_eq!(broker.publish(&subject(Interactive, "c"), "5", bytes("x")).await, Err(BrokerError::Full), "by frames");
}

#[tokio::test]
async fn a_second_consumer_on_a_reader_s_subjects() {
    let (server, _folder) = start().await;
    let broker = connect(&server).await;
    let _puller = broker.puller(&filter(Async)).await.unwrap();
    let overlapping = pull::Config {
        durable_name: Some("other".into()),
        filter_subject: "q.a.>".into(),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    };
    let error = raw(&server).await.create_consumer_on_stream(overlapping, "QA").await.expect_err("refused");
    assert!(error.to_string().contains("10100"), "{error}");
}

#[tokio::test]
async fn reads_that_a_replica_behind_could_answer() {
    let (server, _folder) = start().await;
    let _broker = connect(&server).await;
    for stream in ["KV_tidemill_leases", "tidemill_blobs", "QA"] {
        let found = raw(&server).await.get_stream(stream).await.unwrap();
        assert!(!found.cached_info().config.allow_direct, "{stream}");
    }
}
