//! edge: the upload of a file as a form of two fields, read from the disk while it is sent.

use super::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use shared::entropy;
use std::io;
use std::path::Path;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

/// Bytes read from the disk at a time.
const PIECE: usize = 256 * 1024;

pub(super) struct Upload {
    pub(super) body: Body,
    pub(super) headers: HeaderMap,
}

/// # Errors
/// The file cannot be read.
pub(super) async fn of(path: &Path) -> io::Result<Upload> {
    let file = File::open(path).await?;
    let length = file.metadata().await?.len();
    let boundary = format!("tidemill-{:016x}{:016x}", entropy::draw(), entropy::draw());
    let (before, after) = around(&boundary);
    let headers = headers(&boundary, before.len() as u64 + length + after.len() as u64);
    let one = |bytes: Bytes| stream::iter([Ok(bytes)]);
    let pieces = one(before).chain(ReaderStream::with_capacity(file, PIECE)).chain(one(after));
    Ok(Upload { body: StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync(), headers })
}

/// What stands before and after the file's bytes. `purpose` comes first: a server that streams can act on it at once.
fn around(boundary: &str) -> (Bytes, Bytes) {
    let before = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"batch.jsonl\"\r\nContent-Type: application/jsonl\r\n\r\n"
    );
    (before.into(), format!("\r\n--{boundary}--\r\n").into())
}

fn headers(boundary: &str, length: u64) -> HeaderMap {
    let form = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}")).expect("a boundary is letters and digits");
    HeaderMap::from_iter([(CONTENT_TYPE, form), (CONTENT_LENGTH, length.into())])
}
