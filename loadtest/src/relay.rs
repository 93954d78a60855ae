//! edge: the barest gateways that can be: how much of an added latency is the machine's and the road's, not a gateway's.
//!
//! Straight, an HTTP server hands each body to an HTTP client. Over JetStream a body first takes the way of Tidemill's design
//! (`relay/jetstream.rs`). Nothing is checked, limited, batched, coalesced, logged or recovered. The libraries are Tidemill's.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jetstream::Lane;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

mod jetstream;

pub use jetstream::LaneError;

/// How a body comes to the backend.
pub enum Road {
    Straight(Backend),
    JetStream(Lane),
}

/// The model server.
#[derive(Clone)]
pub struct Backend {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    /// Its address, such as `http://127.0.0.1:9000`.
    base: Arc<str>,
}

/// Any failure ends in a 502: a relay that fails is no floor of anything.
type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Road {
    /// Through the nats-server of this address if there is one.
    pub async fn open(backend: &str, nats: Option<&str>) -> Result<Self, LaneError> {
        let backend = Backend::new(backend);
        match nats {
            None => Ok(Self::Straight(backend)),
            Some(url) => Lane::open(url, backend).await.map(Self::JetStream),
        }
    }

    async fn ask(&self, path: &str, body: Bytes) -> Result<Bytes, Failed> {
        match self {
            Self::Straight(backend) => backend.ask(path, body).await,
            Self::JetStream(lane) => lane.ask(path, &body).await,
        }
    }
}

/// Serves on the listener until dropped.
pub async fn serve(listener: TcpListener, road: Road) {
    let road = Arc::new(road);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(connection(stream, Arc::clone(&road)));
        }
    }
}

async fn connection(stream: TcpStream, road: Arc<Road>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let road = Arc::clone(&road);
        async move { Ok::<_, Infallible>(answer(&road, request).await) }
    });
    // A client that leaves is no error of ours.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(road: &Road, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let asked = async { road.ask(head.uri.path(), body.collect().await?.to_bytes()).await };
    match asked.await {
        Ok(body) => response(StatusCode::OK, body),
        Err(error) => response(StatusCode::BAD_GATEWAY, error.to_string().into()),
    }
}

fn response(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Backend {
    fn new(base: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { http: legacy::Client::builder(TokioExecutor::new()).build(connector), base: base.into() }
    }

    async fn ask(&self, path: &str, body: Bytes) -> Result<Bytes, Failed> {
        let request = Request::post(format!("{}{path}", self.base)).header(CONTENT_TYPE, "application/json");
        let response = self.http.request(request.body(Full::new(body))?).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body().collect().await?.to_bytes()),
            status => Err(format!("the backend answered {status}").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{self, Costs};
    use crate::client::Client;

    #[tokio::test]
    async fn a_body_goes_there_and_its_answer_comes_back() {
        let [backend, front] = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (road, client) = (Road::open(&url(&backend), None).await.unwrap(), Client::new(&url(&front), ""));
        let asks = async {
            let answer = client.post("/v1/chat/completions", r#"{"messages":[{"content":"a"}]}"#).await.unwrap();
            assert_eq!((answer.status, answer.json()["model"].as_str()), (200, Some("chat")));
            assert_eq!(client.post("/v1/chat/completions", "{}").await.unwrap().status, 502);
        };
        tokio::select! {
            () = backend::serve(backend, Costs::default()) => {}
            () = serve(front, road) => {}
            () = asks => {}
        }
    }
}
