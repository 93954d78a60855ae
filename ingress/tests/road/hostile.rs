//! Peers that mean harm, or might as well: each loses its connection, and nobody else notices.
//!
//! On the real clock with short limits: a paused one runs on while bytes are under way between two sockets.

use crate::harness::{CHAT, CHAT_BODY, KEY, STREAM_BODY, Stand, Taken, meanwhile, soon};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use shared::clock;
use shared::entropy::exec_id;
use shared::task::{self, Guarded};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// The limit that a test runs into, where the rest of what it does takes far less.
const LIMIT: Duration = Duration::from_millis(500);

/// What a test may begin to count too late.
const SLACK: Duration = Duration::from_millis(200);

/// An ingress that soon gives up a caller who takes nothing.
async fn impatient() -> Stand {
    Stand::with(|config| config.limits.write_timeout_ms = 500).await
}

const PART: usize = 512 * 1024;
/// An answer that does not fit into the buffers of two sockets.
const PARTS: u32 = 64;

/// Answers with far more than a peer that does not read can be sent.
async fn answer_hugely(stand: &Stand, taken: &Taken) {
    let (exec, part) = (exec_id(), Bytes::from(vec![b'x'; PART]));
    for number in 0..PARTS {
        stand.reply(taken.envelope.id, exec, number, number + 1 == PARTS, part.clone()).await;
    }
}

/// Reads on until the connection ends; how many bytes came.
async fn rest_of(stream: &mut TcpStream) -> usize {
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await; // A reset is an end too.
    rest.len()
}

#[tokio::test]
async fn a_client_that_never_reads_its_answer_loses_its_connection() {
    let mut stand = impatient().await;
    let mut stream = TcpStream::connect(stand.addr).await.unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{CHAT_BODY}", CHAT_BODY.len()).as_bytes()).await.unwrap();
    let taken = stand.take("sandbox-chat").await;
    answer_hugely(&stand, &taken).await;
    sleep(LIMIT * 3).await;
    let received = rest_of(&mut stream).await;
    assert!(received < PARTS as usize * PART, "cut off after what the sockets held, not {received} bytes");
}

/// An HTTP/2 connection whose end can be awaited. Its pings are answered, whatever the test does.
struct Http2 {
    requests: SendRequest<Full<Bytes>>,
    ended: oneshot::Receiver<()>,
    _driver: Guarded,
}

impl Http2 {
    async fn open(stand: &Stand) -> Self {
        let stream = TokioIo::new(TcpStream::connect(stand.addr).await.unwrap());
        let (requests, connection) = http2::Builder::new(TokioExecutor::new()).handshake(stream).await.unwrap();
        let (end, ended) = oneshot::channel();
        let driver = task::spawn_guarded("client", async move {
            let _ = connection.await;
            let _ = end.send(());
        });
        Self { requests, ended, _driver: driver }
    }

    fn ask(&self, stand: &Stand, body: &'static str) -> oneshot::Receiver<http::Response<Incoming>> {
        let request = Request::post(format!("http://{}{CHAT}", stand.addr)).header("authorization", format!("Bearer {KEY}"));
        let request = request.header("content-type", "application/json").body(Full::from(body)).unwrap();
        let mut requests = self.requests.clone();
        meanwhile(async move { requests.send_request(request).await.unwrap() })
    }
}

#[tokio::test]
async fn a_stream_whose_window_stays_shut_ends_its_connection() {
    let mut stand = impatient().await;
    let client = Http2::open(&stand).await;
    let asked = client.ask(&stand, CHAT_BODY);
    let taken = stand.take("sandbox-chat").await;
    answer_hugely(&stand, &taken).await;
    let _unread = asked.await.unwrap();
    let began = clock::now();
    soon(client.ended).await.unwrap();
    let waited = clock::now().since(began);
    assert!(waited >= LIMIT - SLACK, "its time is left to it: {waited:?}");
}

#[tokio::test]
async fn a_stream_whose_backend_thinks_is_left_alone() {
    let mut stand = impatient().await;
    let client = Http2::open(&stand).await;
    let asked = client.ask(&stand, STREAM_BODY);
    let (taken, exec) = (stand.take("sandbox-chat").await, exec_id());
    stand.reply(taken.envelope.id, exec, 0, false, "data: 1\n\n").await;
    let mut body = asked.await.unwrap().into_body();
    assert!(soon(body.frame()).await.unwrap().is_ok());
    sleep(LIMIT * 3).await;
    stand.reply(taken.envelope.id, exec, 1, true, "data: [DONE]\n\n").await;
    assert_eq!(soon(body.collect()).await.unwrap().to_bytes(), "data: [DONE]\n\n");
}

#[tokio::test]
async fn a_large_answer_comes_whole_over_http_2() {
    let mut stand = Stand::start().await;
    let client = Http2::open(&stand).await;
    let asked = client.ask(&stand, CHAT_BODY);
    let taken = stand.take("sandbox-chat").await;
    answer_hugely(&stand, &taken).await;
    let body = soon(asked.await.unwrap().into_body().collect()).await.unwrap().to_bytes();
    assert!(body.len() == PARTS as usize * PART && body.iter().all(|&byte| byte == b'x'));
}

/// Sends a request's head and `pieces` of a longer body, with a pause after each; the answer, and when it came.
async fn drip(stand: &Stand, pieces: usize, pause: Duration) -> (String, Duration) {
    let mut stream = TcpStream::connect(stand.addr).await.unwrap();
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\ncontent-length: 900\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let began = clock::now();
    let (mut reader, mut writer) = stream.into_split();
    let writing = task::spawn_guarded("drip", async move {
        for _ in 0..pieces {
            let _ = writer.write_all(b"{").await;
            sleep(pause).await;
        }
        std::future::pending::<()>().await;
    });
    let mut answer = String::new();
    let _ = tokio::time::timeout(Duration::from_secs(300), reader.read_to_string(&mut answer)).await.expect("an end");
    drop(writing);
    (answer, clock::now().since(began))
}

#[tokio::test]
async fn a_body_that_stops_is_given_up_long_before_one_that_is_slow() {
    let stand = Stand::with(|config| (config.limits.body_idle_timeout_ms, config.limits.body_timeout_ms) = (500, 2_000)).await;
    let (answer, after) = drip(&stand, 1, Duration::ZERO).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("stopped coming"), "{answer}");
    assert!(after >= LIMIT - SLACK && after < LIMIT * 3, "{after:?}");
    let (answer, after) = drip(&stand, 800, LIMIT / 20).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("in time"), "{answer}");
    assert!(after >= LIMIT * 4 - SLACK, "{after:?}");
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let stand = Stand::with(|config| config.limits.connections_per_address_max = Some(2)).await;
    let livez = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = TcpStream::connect(stand.addr).await.unwrap();
    let mut second = TcpStream::connect(stand.addr).await.unwrap();
    for stream in [&mut first, &mut second] {
        assert!(answers(stream, livez).await, "within the limit");
    }
    assert!(!answers(&mut TcpStream::connect(stand.addr).await.unwrap(), livez).await, "one too many");
    drop(first);
    let again = async { while !answers(&mut TcpStream::connect(stand.addr).await.unwrap(), livez).await {} };
    soon(again).await;
    assert!(answers(&mut second, livez).await, "who was there is not disturbed");
}

/// Whether a question on this connection is answered.
async fn answers(stream: &mut TcpStream, question: &[u8]) -> bool {
    let mut some = [0; 12];
    stream.write_all(question).await.is_ok() && soon(stream.read_exact(&mut some)).await.is_ok() && {
        let mut rest = [0; 4096];
        some == *b"HTTP/1.1 200" && soon(stream.read(&mut rest)).await.is_ok()
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM_AND_HEADERS: u8 = 5;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;
/// `a: b`, as it is.
const A_FIELD: &[u8] = b"\x00\x01a\x01b";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET http://x/livez`, compressed as HPACK wants it.
fn get_livez() -> Vec<u8> {
    b"\x82\x86\x44\x06/livez\x41\x01x".to_vec()
}

/// Sends frames on a new connection, and reads until the server ends it; the code of its goodbye, if it said any.
async fn goodbye(stand: &Stand, frames: Vec<Vec<u8>>) -> Option<u32> {
    let stream = TcpStream::connect(stand.addr).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let _writing = task::spawn_guarded("flood", async move {
        for bytes in [vec![opening], frames].concat() {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
    let mut received = Vec::new();
    let _ = soon(reader.read_to_end(&mut received)).await; // A reset is an end too.
    goaway(&received)
}

fn goaway(mut received: &[u8]) -> Option<u32> {
    while let Some((head, rest)) = received.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length)?;
        if head[3] == GOAWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        received = rest;
    }
    None
}

#[tokio::test]
async fn a_flood_of_streams_opened_and_reset_ends_its_connection() {
    let stand = Stand::start().await;
    let streams = (0..50_000_u32).map(|index| 2 * index + 1);
    let opened_and_reset = |stream: u32| {
        [frame(HEADERS, END_STREAM_AND_HEADERS, stream, &get_livez()), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    let batches: Vec<_> = streams.map(opened_and_reset).collect::<Vec<_>>().chunks(500).map(<[_]>::concat).collect();
    assert_eq!(goodbye(&stand, batches).await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(stand.http.send("GET", "/livez", &[], "").await.status, 200, "others are served");
}

#[tokio::test]
async fn a_head_without_end_ends_its_connection() {
    let stand = Stand::start().await;
    for fields in [0, 1, 200, 3_000] {
        let piece = frame(CONTINUATION, 0, 1, &A_FIELD.repeat(fields));
        let mut frames = vec![frame(HEADERS, 0, 1, &get_livez())];
        frames.extend(vec![piece; 4_000]);
        let code = goodbye(&stand, frames).await;
        assert!(matches!(code, Some(COMPRESSION_ERROR | ENHANCE_YOUR_CALM)), "in pieces of {fields} fields: {code:?}");
    }
    assert_eq!(stand.http.send("GET", "/livez", &[], "").await.status, 200, "others are served");
}
