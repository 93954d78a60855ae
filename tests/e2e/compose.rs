//! Promise: `docker-compose.yml` works as it stands. Its very commands and configuration run here as local processes.
//!
//! Each service gets a loopback address of its own, so ports stay as the file has them; only host names, `0.0.0.0` and the
//! mounted paths are replaced. What needs an engine (images, networks) is only read.

mod file;
mod service;

use crate::harness::{SOON, chat, embed, prompt, report, tag};
use file::Compose;
use loadtest::client::Client;
use service::Stack;

fn compose() -> Compose {
    Compose::read(concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml"))
}

#[test]
fn the_file_describes_the_distributed_set_up() {
    let compose = compose();
    let count = |prefix: &str| compose.services.keys().filter(|name| name.starts_with(prefix)).count();
    let counts = ["nats-", "redis", "ingress-", "scheduler-", "worker-", "sandbox"].map(count);
    assert_eq!(counts, [3, 1, 2, 2, 3, 1]);
    for (name, service) in &compose.services {
        assert!(!service.healthcheck.test.is_empty(), "{name} has no health check");
        let (_, version) = service.image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: the image {} is not pinned", service.image));
        assert_ne!(version, "latest", "{name}: the image is not pinned");
        for port in &service.ports {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port} to everybody");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn its_commands_and_configuration_run() {
    let compose = compose();
    let key = compose.services["ingress-1"].environment_value("TIDEMILL_DEMO_KEY");
    let mut stack = Stack::of(&compose);
    let began = loadtest::clock::Stopwatch::start();
    stack.start_in_order(&compose).await;
    let healthy = began.elapsed().as_secs_f64();
    for ingress in ["ingress-1", "ingress-2"] {
        let client = Client::new(&format!("http://{}:8080", stack.address(ingress)), &key);
        answers(&client, ingress).await;
    }
    stack.stop_roles().await;
    let (running, restarts) = (stack.running(), &stack.restarts);
    report("compose", &format!("{running} services were healthy after {healthy:.1} s; both ingresses answered; restarts: {restarts:#?}"));
}

async fn answers(client: &Client, through: &str) {
    let text = prompt(&format!("through {through}"));
    let asked = tokio::time::timeout(SOON, client.post("/v1/chat/completions", chat("chat-small", &text)));
    let answer = asked.await.expect("in time").expect("an answer");
    assert!(answer.status == 200 && answer.text().contains(&tag(&text)), "{through}: {}", answer.text());
    let asked = tokio::time::timeout(SOON, client.post("/v1/embeddings", embed("embed-small", &text)));
    let answer = asked.await.expect("in time").expect("an answer");
    assert!(answer.status == 200 && answer.json()["data"][0]["embedding"].is_array(), "{through}: {}", answer.text());
}
