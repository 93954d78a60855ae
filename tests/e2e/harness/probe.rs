//! edge: reads metrics, statistics and broker state without a runtime, because destructors ask for them.

use super::certificates::{AUTHORITY, client_config};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Shows a certificate, because a server may ask for one.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| client_config(Some(&AUTHORITY.client())));

/// The body at `base` + `path`; `None` when there is no 200.
pub(crate) fn get(base: &str, path: &str) -> Option<String> {
    let (scheme, host) = base.trim_end_matches('/').split_once("://")?;
    let stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    // HTTP/1.0: the end of the body is the end of the connection.
    let question = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    let answer = match scheme {
        "https" => {
            let session = ClientConnection::new(Arc::clone(&TLS), ServerName::try_from("127.0.0.1").ok()?).ok()?;
            ask(StreamOwned::new(session, stream), &question)?
        }
        _ => ask(stream, &question)?,
    };
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200").map(|_| body.to_owned())
}

fn ask(mut stream: impl Read + Write, question: &str) -> Option<String> {
    stream.write_all(question.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The sum of a metric's samples over all labels; `None` when the process does not answer or has no such metric.
pub(crate) fn metric(base: &str, name: &str) -> Option<f64> {
    sum(&get(base, "/metrics")?, name)
}

/// The messages in one JetStream stream; zero when there is no such stream.
pub(crate) fn stream_messages(monitoring: &str, stream: &str) -> Option<u64> {
    let state: Value = serde_json::from_str(&get(monitoring, "/jsz?streams=true")?).ok()?;
    let accounts = state["account_details"].as_array().cloned().unwrap_or_default();
    let streams = accounts.iter().filter_map(|account| account["stream_detail"].as_array()).flatten();
    Some(streams.filter(|s| s["name"] == stream).filter_map(|s| s["state"]["messages"].as_u64()).sum())
}

fn sum(text: &str, name: &str) -> Option<f64> {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix(' ').or_else(|| rest.strip_prefix('{').and_then(|r| r.rsplit_once("} ").map(|(_, v)| v)))?;
        value.trim().parse::<f64>().ok()
    });
    samples.reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn samples_of_all_labels_are_summed_and_longer_names_are_not() {
        let text = "# TYPE a gauge\na{x=\"1\"} 2\na{x=\"b c\"} 3\na_total 100\n";
        assert_eq!(sum(text, "a"), Some(5.0));
        assert_eq!(sum(text, "a_total"), Some(100.0));
        assert_eq!(sum(text, "b"), None, "a metric that is missing is not zero");
    }
}
