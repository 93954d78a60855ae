//! Promise: the ingress serves https, its certificates change under open connections without a word, and clients may be
//! asked for theirs.

use crate::harness::{
    AUTHORITY, Authority, Broken, KEY_ADMIN, Mill, Pair, Program, Protocol, RawConnection, Role, SOON, Secure, chat, embed, prompt, tag,
    tidemill, until,
};
use rustls::pki_types::CertificateDer;
use shared::task;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const RELOADS: &str = "tidemill_tls_reloads_total";
const EXPIRY: &str = "tidemill_tls_certificate_expiry_seconds";
const REFUSED: &str = "the new certificate cannot be used";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn both_protocols_are_served_over_tls() {
    let pair = AUTHORITY.server();
    let mill = Mill::up().tls(pair.clone(), "").start().await;
    for protocol in BOTH {
        let mut connection = Secure::open(mill.ingress(0), protocol, None).await.expect("a handshake");
        assert_eq!(connection.certificate, pair.der());
        for turn in 0..3 {
            let text = prompt(&format!("{protocol:?} {turn}"));
            let (status, body) = connection.post(CHAT, chat("chat", &text)).await.expect("an answer");
            assert!(status == 200 && body.contains(&tag(&text)), "{protocol:?}: {status} {body}");
        }
        let (status, body) = connection.post(EMBEDDINGS, embed("embed", &prompt("vector"))).await.expect("an answer");
        assert_eq!(status, 200, "{body}");
    }
    assert!(mill.metric(EXPIRY) > 0.0);
}

/// Connections that ask one question after another until told to stop.
struct Busy {
    stop: Arc<AtomicBool>,
    answered: Vec<Arc<AtomicUsize>>,
    failures: mpsc::UnboundedReceiver<String>,
}

impl Busy {
    async fn open(base: &str, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (report, failures) = mpsc::unbounded_channel();
        let mut answered = Vec::new();
        for index in 0..count {
            let connection = Secure::open(base, BOTH[index % 2], None).await.expect("a handshake");
            let done = Arc::new(AtomicUsize::new(0));
            answered.push(Arc::clone(&done));
            let (stop, report) = (Arc::clone(&stop), report.clone());
            task::spawn("busy", async move {
                if let Err(why) = ask_on(connection, index, &stop, &done).await {
                    let _ = report.send(format!("connection {index}: {why}"));
                }
            });
        }
        Self { stop, answered, failures }
    }

    /// Waits until each connection has been answered as often again.
    async fn all_answered(&self, times: usize) {
        let now = || self.answered.iter().map(|done| done.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = now();
        until("every connection is answered", SOON * 2, async || now().iter().zip(&before).all(|(now, before)| now - before >= times))
            .await;
    }

    /// Stops them all; what went wrong on any.
    async fn failures(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(failure) = self.failures.recv().await {
            failures.push(failure);
        }
        failures
    }
}

async fn ask_on(mut connection: Secure, index: usize, stop: &AtomicBool, done: &AtomicUsize) -> Result<(), Broken> {
    while !stop.load(Ordering::Relaxed) {
        let text = prompt(&format!("busy {index} {}", done.load(Ordering::Relaxed)));
        let (status, body) = connection.post(CHAT, chat("chat", &text)).await?;
        if status != 200 || !body.contains(&tag(&text)) {
            return Err(format!("{status} {body}").into());
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn shown(mill: &Mill) -> CertificateDer<'static> {
    Secure::open(mill.ingress(0), Protocol::Http1, None).await.expect("a handshake").certificate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_swapped_under_200_busy_connections_drops_none() {
    let (old, new) = (AUTHORITY.server(), AUTHORITY.server());
    let mut mill = Mill::up().sandbox(&["--first-token-ms", "50"]).tls(old.clone(), "").start().await;
    let busy = Busy::open(mill.ingress(0), 200).await;
    busy.all_answered(1).await;
    new.write(mill.folder());
    mill.hang_up(Role::Up, 0);
    until("new connections get the new certificate", SOON, async || shown(&mill).await == new.der()).await;
    busy.all_answered(2).await;
    assert_eq!(busy.failures().await, Vec::<String>::new());
    assert!(mill.metric(RELOADS) >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pair_that_cannot_serve_leaves_the_old_one_in_use_and_is_logged_once() {
    let old = AUTHORITY.server();
    let mut mill = Mill::up().tls(old.clone(), "").start().await;
    let expires_at = mill.metric(EXPIRY);
    let mismatched = Pair { key: AUTHORITY.server().key, ..AUTHORITY.server() };
    let garbage = Pair { cert: "nothing".into(), key: "nothing".into() };
    for (turn, bad) in [mismatched, AUTHORITY.expired_server(), garbage].into_iter().enumerate() {
        bad.write(mill.folder());
        mill.hang_up(Role::Up, 0);
        until("the bad pair was looked at", SOON, async || mill.metric(RELOADS) > turn as f64).await;
        assert_eq!(shown(&mill).await, old.der(), "pair {turn}");
    }
    assert_eq!(mill.metric(EXPIRY), expires_at);
    let new = AUTHORITY.server();
    new.write(mill.folder());
    // Without a signal: the files are looked at every few seconds.
    until("a good pair takes its place", SOON, async || shown(&mill).await == new.der()).await;
    let complaints = mill.log(Role::Up, 0).matches(REFUSED).count();
    assert!((3..=4).contains(&complaints), "one line for each bad pair, and for a swap seen half done: {complaints}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_show_a_certificate_where_it_is_required() {
    let mill = Mill::up().tls(AUTHORITY.server(), "client_ca: ca.pem").start().await;
    for protocol in BOTH {
        assert_eq!(asked(&mill, protocol, Some(&AUTHORITY.client())).await.expect("a certificate that is right"), 200);
        assert!(asked(&mill, protocol, None).await.is_err(), "{protocol:?}: nobody without a certificate");
        assert!(asked(&mill, protocol, Some(&Authority::new().client())).await.is_err(), "{protocol:?}: nobody's certificate");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_may_leave_their_certificate_away_where_it_is_optional() {
    let mill = Mill::up().tls(AUTHORITY.server(), "client_ca: ca.pem, client_auth: optional").start().await;
    assert_eq!(asked(&mill, Protocol::Http1, None).await.expect("a certificate is optional"), 200);
    assert_eq!(asked(&mill, Protocol::Http2, Some(&AUTHORITY.client())).await.expect("a certificate that is right"), 200);
    let foreign = asked(&mill, Protocol::Http1, Some(&Authority::new().client())).await;
    assert!(foreign.is_err(), "a wrong certificate is not none");
}

async fn asked(mill: &Mill, protocol: Protocol, identity: Option<&Pair>) -> Result<u16, Broken> {
    let mut connection = Secure::open(mill.ingress(0), protocol, identity).await?;
    let (status, _) = connection.get("/v1/models").await?;
    Ok(status)
}

/// A command that calls the ingress by https from its folder; its exit code, and what it said.
async fn command(mill: &Mill, args: &[&str]) -> (Option<i32>, String) {
    let mut command = tidemill();
    command.args(args).env("TIDEMILL_ADMIN_KEY", KEY_ADMIN).current_dir(mill.folder());
    let ended = Program::start("command", command).end(SOON).await;
    (ended.code, ended.out + &ended.err)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_administration_and_the_health_check_speak_https_and_show_a_certificate() {
    let mut mill = Mill::up().admin().tls(AUTHORITY.server(), "client_ca: ca.pem").start().await;
    AUTHORITY.client().write_as(mill.folder(), "client-");
    let admin = mill.admin(0).await;
    assert!(admin.starts_with("https://"), "{admin}");
    let ready = format!("{}/readyz", mill.ingress(0));
    let shown = ["--tls-ca", "ca.pem", "--tls-cert", "client-cert.pem", "--tls-key", "client-key.pem"];
    for call in [&["keys", "create", "--tenant", "first", "--admin", &admin][..], &["healthcheck", "--url", &ready]] {
        assert_eq!(command(&mill, &[call, &shown].concat()).await.0, Some(0), "{call:?}");
        let unknown = command(&mill, &[call, &shown[2..]].concat()).await;
        assert_eq!(unknown.0, Some(1), "nobody trusts this authority unless told: {unknown:?}");
        let another = command(&mill, &[call, &shown, &["--tls-name", "another.example"]].concat()).await;
        assert_eq!(another.0, Some(1), "the certificate bears another name: {another:?}");
        let bare = command(&mill, &[call, &shown[..2]].concat()).await;
        assert_eq!(bare.0, Some(1), "nobody without a certificate: {bare:?}");
    }
    assert_eq!(
        command(&mill, &[&["healthcheck", "--url", &ready], &shown[..4]].concat()).await.0,
        Some(2),
        "a certificate without its key"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hangup_ends_no_role_that_has_no_certificate() {
    let mut mill = Mill::cluster(1, 1, 1).start().await;
    for role in [Role::Ingress, Role::Scheduler, Role::Worker] {
        mill.hang_up(role, 0);
        until("it has heard", SOON, async || mill.log(role, 0).contains("SIGHUP")).await;
    }
    let text = prompt("after the hangups");
    let answer = mill.client().post(CHAT, chat("chat", &text)).await.expect("an answer");
    assert!(answer.status == 200 && answer.text().contains(&tag(&text)), "{answer:?}");
}

/// The beginning of a handshake that never goes on.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_shakes_hands_slowly_is_let_go_and_keeps_nobody_waiting() {
    let mill = Mill::up().limit("header_timeout_ms: 3000").tls(AUTHORITY.server(), "").start().await;
    let mut slow = Vec::new();
    for index in 0..100 {
        let mut connection = RawConnection::open(mill.ingress(0)).await;
        connection.send(if index % 2 == 0 { HALF_A_HELLO } else { b"" }).await;
        slow.push(connection);
    }
    let served = timeout(Duration::from_secs(2), asked(&mill, Protocol::Http1, None)).await;
    assert_eq!(served.expect("before any of the slow ones is let go").expect("an answer"), 200);
    for mut connection in slow {
        // No answer in HTTP: an end is an end, and a wait beyond SOON would be none.
        let ended = timeout(SOON, connection.answer(SOON * 2)).await;
        assert!(ended.expect("the connection is closed").is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn certificates_that_cannot_serve_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    AUTHORITY.expired_server().write(folder.path());
    std::fs::write(folder.path().join("wrong.yaml"), "tls: { cert: cert.pem, key: key.pem }\n").unwrap();
    let mut command = tidemill();
    command.args(["up", "--config", "wrong.yaml", "--nats", "memory", "--listen", "127.0.0.1:0"]).current_dir(folder.path());
    let ended = Program::start("up", command).end(SOON).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("tls: cert.pem: has expired"), "{}", ended.err);
}
