//! edge: `POST /v1/files`: a multipart form whose file is stored while it comes.

use super::{FILES_MAX, FileWriter};
use crate::gate::Gate;
use crate::idempotency;
use crate::native;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use shared::broker::BrokerError;
use shared::clock;
use shared::domain::Token;
use shared::error::{Code, Failure};
use shared::identity::Caller;
use shared::jobs::{self, Created, File, Purpose, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How the id of a file begins.
const PREFIX: &str = "file-";

/// Bytes of a form's field that is not the file, and of a file's name.
const FIELD_BYTES_MAX: usize = 1_024;

/// How long a file may be kept on request: OpenAI's bounds.
const EXPIRES_AFTER_S: std::ops::RangeInclusive<u64> = 3_600..=2_592_000;

/// The form, as it comes together. Its fields may come in any order.
#[derive(Default)]
struct Form {
    purpose: Option<Purpose>,
    name: Option<Box<str>>,
    expires_after_s: Option<u64>,
}

/// Stores a file and puts it on record.
///
/// # Errors
/// What is wrong with the form; `body_too_large`; `request_timeout`; `idempotency_mismatch`; what the store refuses.
pub(super) async fn receive(gate: &Gate, caller: &Caller, request: Request) -> Result<File, Failure> {
    let (tenant, name) = (&caller.tenant.name, idempotency::name(request.headers())?);
    if super::all(gate, tenant).await?.len() >= FILES_MAX {
        return Err(Failure::new(Code::QueueFull, format!("You keep {FILES_MAX} files already: delete some")));
    }
    let multipart = Multipart::from_request(request, &()).await;
    let mut multipart = multipart.map_err(|_| Failure::new(Code::UnsupportedMediaType, "Send the file as multipart/form-data"))?;
    let content = idempotency::id(PREFIX, tenant, None);
    let (mut form, mut writer) = (Form::default(), FileWriter::new(Arc::clone(&gate.road.broker), content.clone(), name.is_some()));
    fields(gate, &mut multipart, &mut form, &mut writer).await?;
    let id = if name.is_some() { idempotency::id(PREFIX, tenant, name.as_deref()) } else { content.clone() };
    let file = record(form, &writer, tenant, id, content)?;
    keep(writer, &file, jobs::create(gate.broker(), &file)).await
}

/// Puts a file on record, or finds the one that has its name. Its parts go only when no record can name them: one whose answer was
/// lost, or that nobody waits for any more, may be there.
async fn keep(
    mut writer: FileWriter,
    file: &File,
    creation: impl Future<Output = Result<Created<File>, StoreError>>,
) -> Result<File, Failure> {
    writer.keep();
    let created = creation.await;
    if !may_name(&created, file.content()) {
        writer.discard();
    }
    match created.map_err(|error| native::of_store(&error))? {
        Created::New { .. } => Ok(file.clone()),
        Created::Known(known) if known.value.fingerprint == file.fingerprint => Ok(known.value),
        Created::Known(_) => Err(idempotency::mismatch()),
    }
}

/// Whether a record may be there that names a content.
fn may_name(created: &Result<Created<File>, StoreError>, content: &Token) -> bool {
    match created {
        Ok(Created::Known(known)) => known.value.content() == content,
        Err(StoreError::Broker(BrokerError::Full | BrokerError::TooLarge | BrokerError::Conflict)) => false,
        Ok(Created::New { .. }) | Err(_) => true,
    }
}

fn record(form: Form, writer: &FileWriter, tenant: &str, id: Token, content: Token) -> Result<File, Failure> {
    let missing = |name: &str| Failure::new(Code::MissingParameter, format!("`{name}` is required: add it to the form")).param(name);
    let purpose = form.purpose.ok_or_else(|| missing("purpose"))?;
    let name = form.name.ok_or_else(|| missing("file"))?;
    let created_ms = clock::unix_ms();
    let expires_ms = form.expires_after_s.map(|s| created_ms + s * 1_000);
    let FileWriter { parts, bytes, lines, .. } = *writer;
    let fingerprint = writer.hash().map(|hash| fingerprint(&name, purpose, form.expires_after_s, &hash)).unwrap_or_default();
    let content = (content != id).then_some(content);
    Ok(File { id, tenant: tenant.into(), name, purpose, bytes, lines, parts, created_ms, expires_ms, content, fingerprint })
}

fn fingerprint(name: &str, purpose: Purpose, expires_after_s: Option<u64>, content: &blake3::Hash) -> Vec<u8> {
    let asked = format!("{name}\0{}\0{expires_after_s:?}\0{content}", purpose.as_str());
    blake3::hash(asked.as_bytes()).as_bytes().to_vec()
}

async fn fields(gate: &Gate, form: &mut Multipart, into: &mut Form, writer: &mut FileWriter) -> Result<(), Failure> {
    let idle = Duration::from_millis(gate.config.limits.body_idle_timeout_ms);
    while let Some(field) = timeout(idle, form.next_field()).await.map_err(|_| stopped())?.map_err(|error| broken(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file" if into.name.is_some() => return Err(invalid("file", "sent once")),
            "file" => {
                into.name = Some(file_name(&field)?);
                store(gate, field, writer, idle).await?;
            }
            "purpose" => into.purpose = Some(purpose(&text(field, idle).await?)?),
            "expires_after[anchor]" => anchor(&text(field, idle).await?)?,
            "expires_after[seconds]" => into.expires_after_s = Some(seconds(&text(field, idle).await?)?),
            _ => return Err(Failure::new(Code::InvalidValue, "The form may hold file, purpose and expires_after, and nothing else")),
        }
    }
    Ok(())
}

fn file_name(field: &Field<'_>) -> Result<Box<str>, Failure> {
    let name = field.file_name().unwrap_or("file");
    if name.is_empty() || name.len() > FIELD_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(invalid("file", "named with up to 1,024 bytes of printable text"));
    }
    Ok(name.into())
}

async fn store(gate: &Gate, mut field: Field<'_>, writer: &mut FileWriter, idle: Duration) -> Result<(), Failure> {
    let bytes_max = gate.config.jobs.file_bytes_max;
    while let Some(piece) = timeout(idle, field.chunk()).await.map_err(|_| stopped())?.map_err(|error| broken(&error))? {
        if writer.bytes + piece.len() as u64 > bytes_max {
            return Err(Failure::new(Code::BodyTooLarge, format!("The file is larger than {bytes_max} bytes: split it")).param("file"));
        }
        writer.write(piece).await.map_err(|error| native::of_broker(&error))?;
    }
    writer.finish().await.map_err(|error| native::of_broker(&error))
}

async fn text(mut field: Field<'_>, idle: Duration) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    while let Some(piece) = timeout(idle, field.chunk()).await.map_err(|_| stopped())?.map_err(|error| broken(&error))? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > FIELD_BYTES_MAX {
            return Err(Failure::new(Code::InvalidValue, "A field of the form is too long"));
        }
    }
    String::from_utf8(bytes).map_err(|_| Failure::new(Code::InvalidValue, "A field of the form is not UTF-8"))
}

fn purpose(text: &str) -> Result<Purpose, Failure> {
    match text {
        "batch" => Ok(Purpose::Batch),
        "user_data" | "assistants" | "evals" | "fine-tune" | "vision" => Ok(Purpose::UserData),
        _ => Err(invalid("purpose", "batch or user_data")),
    }
}

fn anchor(text: &str) -> Result<(), Failure> {
    if text == "created_at" { Ok(()) } else { Err(invalid("expires_after", "anchored at created_at")) }
}

fn seconds(text: &str) -> Result<u64, Failure> {
    let seconds = text.parse().ok().filter(|seconds| EXPIRES_AFTER_S.contains(seconds));
    seconds.ok_or_else(|| invalid("expires_after", "from 3600 to 2592000 seconds"))
}

fn invalid(name: &str, expected: &str) -> Failure {
    Failure::new(Code::InvalidValue, format!("`{name}` must be {expected}")).param(name)
}

fn stopped() -> Failure {
    Failure::new(Code::RequestTimeout, "The file stopped coming: send it again without a pause")
}

fn broken(_: &MultipartError) -> Failure {
    Failure::new(Code::InvalidValue, "The form is malformed or broke off: send it whole, as multipart/form-data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::FutureExt;
    use serde_json::json;
    use shared::broker::memory::MemoryBroker;
    use shared::broker::{Broker, Store};
    use std::future::{pending, ready};

    fn file(content: &str) -> File {
        let file = json!({
            "id": "file-1", "tenant": "t", "name": "f", "purpose": "batch", "bytes": 2, "lines": 1, "parts": 1, "created_ms": 0,
            "content": content,
        });
        serde_json::from_value(file).unwrap()
    }

    async fn written(broker: &Arc<MemoryBroker>, file: &File) -> FileWriter {
        let mut writer = FileWriter::new(broker.clone(), file.content().clone(), false);
        writer.write(Bytes::from_static(b"{}")).await.unwrap();
        writer.finish().await.unwrap();
        writer
    }

    async fn is_stored(broker: &MemoryBroker, file: &File) -> bool {
        tokio::task::yield_now().await; // To whoever deletes it.
        broker.blob_get(Store::Files, &File::part_key(file.content(), 0)).await.unwrap().is_some()
    }

    async fn unanswered(broker: &MemoryBroker, file: &File) -> Result<Created<File>, StoreError> {
        jobs::create(broker, file).await?;
        Err(BrokerError::Unavailable("no answer".into()).into())
    }

    #[tokio::test]
    async fn a_file_whose_record_had_no_answer_keeps_its_parts() {
        let (broker, first, second) = (MemoryBroker::new(), file("file-a"), file("file-b"));
        let refused = keep(written(&broker, &first).await, &first, unanswered(&broker, &first)).await;
        assert_eq!(refused.unwrap_err().code, Code::BrokerUnavailable);
        assert!(is_stored(&broker, &first).await);
        let known = keep(written(&broker, &second).await, &second, jobs::create(broker.as_ref(), &second)).await;
        assert_eq!(known.as_ref(), Ok(&first), "sent again under its name");
        assert!(is_stored(&broker, &first).await && !is_stored(&broker, &second).await);
    }

    #[tokio::test]
    async fn a_file_whose_caller_leaves_as_it_goes_on_record_keeps_its_parts() {
        let (broker, file) = (MemoryBroker::new(), file("file-a"));
        assert_eq!(keep(written(&broker, &file).await, &file, pending()).now_or_never(), None);
        assert!(is_stored(&broker, &file).await);
    }

    #[tokio::test]
    async fn a_file_that_is_surely_not_on_record_leaves_nothing_behind() {
        for error in [BrokerError::Full, BrokerError::TooLarge, BrokerError::Conflict] {
            let (broker, file) = (MemoryBroker::new(), file("file-a"));
            assert!(keep(written(&broker, &file).await, &file, ready(Err(error.into()))).await.is_err());
            assert!(!is_stored(&broker, &file).await);
        }
    }
}
