//! edge: a server of files and batches whose steps a test decides. It promises no order, as a server may, and refuses every
//! fifth request once, as in a restart.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, serve};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use shared::task::{self, Guarded};
use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;

/// A text with this in it gets an error instead of a vector.
pub(crate) const REFUSE: &str = "[[refuse]]";

/// Bytes of one upload in these tests.
const UPLOAD_BYTES_MAX: usize = 16 << 20;

/// Serves until it is dropped.
pub(crate) struct Peer {
    url: String,
    shop: Arc<Mutex<Shop>>,
    _task: Guarded,
}

#[derive(Default)]
struct Shop {
    requests: usize,
    files: HashMap<String, String>,
    batches: Vec<Value>,
    /// Batches from this place on stay in progress.
    held_from: Option<usize>,
    /// The creation of the batch at this place is never answered.
    mute_at: Option<usize>,
    made: usize,
}

type Shared = State<Arc<Mutex<Shop>>>;

fn lock(shop: &Mutex<Shop>) -> MutexGuard<'_, Shop> {
    shop.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
        let shop = Arc::new(Mutex::new(Shop::default()));
        let routes = router(Arc::clone(&shop));
        let task = task::spawn_guarded("batch peer", async move { serve(listener, routes).await.expect("the listener is sound") });
        Self { url, shop, _task: task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Batches from this place on stay in progress, until told otherwise.
    pub(crate) fn hold_from(&self, place: Option<usize>) {
        lock(&self.shop).held_from = place;
    }

    /// The creation of the batch at this place works, and is never answered.
    pub(crate) fn mute_at(&self, place: usize) {
        lock(&self.shop).mute_at = Some(place);
    }

    /// Batches made so far.
    pub(crate) fn batches(&self) -> usize {
        lock(&self.shop).batches.len()
    }

    /// Files that nobody has deleted.
    pub(crate) fn files(&self) -> usize {
        lock(&self.shop).files.len()
    }

    /// The `custom_id`s of all lines of all batches, sorted as numbers.
    pub(crate) fn rows_sent(&self) -> Vec<u64> {
        let shop = lock(&self.shop);
        let lines = shop.batches.iter().flat_map(|batch| batch["sent"].as_array().expect("the peer keeps them").clone());
        let mut rows: Vec<u64> = lines.map(|id| id.as_str().expect("ids are texts").parse().expect("ids are rows")).collect();
        rows.sort_unstable();
        rows
    }
}

/// A vector that says which text it is of.
pub(crate) fn vector(text: &str) -> Vec<f32> {
    let sum = text.bytes().fold(0_u16, |sum, byte| (sum * 31 + u16::from(byte)) % 1_009);
    vec![f32::from(sum), f32::from(u16::try_from(text.len()).expect("the tests' texts are short")), 0.1, -1.5]
}

fn router(shop: Arc<Mutex<Shop>>) -> Router {
    Router::new()
        .route("/v1/files", post(upload))
        .route("/v1/files/{id}", axum::routing::delete(discard))
        .route("/v1/files/{id}/content", get(content))
        .route("/v1/batches", post(create).get(list))
        .route("/v1/batches/{id}", get(show))
        .route("/v1/batches/{id}/cancel", post(cancel))
        .layer(DefaultBodyLimit::max(UPLOAD_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&shop), unreliable))
        .with_state(shop)
}

async fn unreliable(State(shop): Shared, request: Request, next: Next) -> Response {
    let requests = {
        let mut shop = lock(&shop);
        shop.requests += 1;
        shop.requests
    };
    if requests % 5 == 0 {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [("retry-after", "0")],
            Json(json!({ "error": { "code": "draining", "message": "Again." } })),
        )
            .into_response();
    }
    next.run(request).await
}

async fn upload(State(shop): Shared, body: Bytes) -> Json<Value> {
    let form = String::from_utf8_lossy(&body).into_owned();
    let boundary = form.lines().next().expect("a form begins with its boundary");
    let (_, file) = form.split_once("application/jsonl\r\n\r\n").expect("the form has a file");
    let (lines, _) = file.split_once(&format!("\r\n{boundary}--")).expect("the form has an end");
    let mut shop = lock(&shop);
    let id = format!("file-{}", shop.requests);
    shop.files.insert(id.clone(), lines.to_owned());
    Json(json!({ "id": id, "object": "file", "bytes": lines.len(), "purpose": "batch" }))
}

async fn content(State(shop): Shared, Path(id): Path<String>) -> Result<String, StatusCode> {
    lock(&shop).files.get(&id).cloned().ok_or(StatusCode::NOT_FOUND)
}

async fn discard(State(shop): Shared, Path(id): Path<String>) -> Json<Value> {
    let deleted = lock(&shop).files.remove(&id).is_some();
    Json(json!({ "id": id, "object": "file", "deleted": deleted }))
}

async fn create(State(shop): Shared, Json(wanted): Json<Value>) -> Json<Value> {
    let (batch, is_mute) = {
        let mut shop = lock(&shop);
        let file = wanted["input_file_id"].as_str().expect("a batch has a file");
        let lines = shop.files.get(file).expect("the file was uploaded").lines();
        let sent: Vec<Value> =
            lines.map(|line| serde_json::from_str::<Value>(line).expect("lines are JSON")["custom_id"].clone()).collect();
        let place = shop.batches.len();
        let batch = json!({
            "id": format!("batch_{place}"), "object": "batch", "endpoint": wanted["endpoint"], "input_file_id": file,
            "status": "in_progress", "sent": sent,
            "request_counts": { "total": sent.len(), "completed": 0, "failed": 0 }
        });
        shop.batches.push(batch.clone());
        (batch, shop.mute_at.take_if(|at| *at == place).is_some())
    };
    if is_mute {
        pending::<()>().await;
    }
    Json(batch)
}

async fn list(State(shop): Shared) -> Json<Value> {
    Json(json!({ "object": "list", "data": lock(&shop).batches, "has_more": false }))
}

async fn show(State(shop): Shared, Path(id): Path<String>) -> Result<Json<Value>, StatusCode> {
    let mut shop = lock(&shop);
    let place = shop.batches.iter().position(|batch| batch["id"] == id.as_str()).ok_or(StatusCode::NOT_FOUND)?;
    if shop.batches[place]["status"] == "in_progress" && shop.held_from.is_none_or(|from| place < from) {
        shop.finish(place);
    }
    Ok(Json(shop.batches[place].clone()))
}

async fn cancel(State(shop): Shared, Path(id): Path<String>) -> Result<Json<Value>, StatusCode> {
    let mut shop = lock(&shop);
    let batch = shop.batches.iter_mut().find(|batch| batch["id"] == id.as_str()).ok_or(StatusCode::NOT_FOUND)?;
    batch["status"] = "cancelled".into();
    Ok(Json(batch.clone()))
}

impl Shop {
    fn finish(&mut self, place: usize) {
        let file = self.batches[place]["input_file_id"].as_str().unwrap_or_default();
        let lines: Vec<Value> = self.files[file].lines().rev().map(|line| serde_json::from_str(line).expect("lines are JSON")).collect();
        let (refused, answered): (Vec<_>, Vec<_>) = lines.iter().partition(|line| text(line).contains(REFUSE));
        let counts = json!({ "total": lines.len(), "completed": answered.len(), "failed": refused.len() });
        let output = self.keep(&answered, |line| {
            let bytes: Vec<u8> = vector(text(line)).iter().flat_map(|number| number.to_le_bytes()).collect();
            let data = json!([{ "object": "embedding", "index": 0, "embedding": BASE64_STANDARD.encode(bytes) }]);
            json!({ "status_code": 200, "request_id": "r", "body": { "object": "list", "data": data } })
        });
        let errors = self.keep(&refused, |_| {
            json!({ "status_code": 400, "request_id": "r", "body": { "error": { "code": "refused", "message": "It was asked for." } } })
        });
        let batch = &mut self.batches[place];
        batch["status"] = "completed".into();
        batch["request_counts"] = counts;
        (batch["output_file_id"], batch["error_file_id"]) = (output, errors);
    }

    /// A file with a line for each; null when there are none.
    fn keep(&mut self, lines: &[&Value], response: impl Fn(&Value) -> Value) -> Value {
        if lines.is_empty() {
            return Value::Null;
        }
        let line = |line: &Value| json!({ "custom_id": line["custom_id"], "response": response(line), "error": null }).to_string() + "\n";
        let text: String = lines.iter().map(|one| line(one)).collect();
        self.made += 1;
        let id = format!("file-made-{}", self.made);
        self.files.insert(id.clone(), text);
        id.into()
    }
}

fn text(line: &Value) -> &str {
    line["body"]["input"].as_str().expect("each line embeds a text")
}
