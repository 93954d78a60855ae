//! edge: reads a request's body, within its bounds of size and time, and those of all bodies together.

use crate::bodies::{Bodies, NoRoom, Share};
use crate::headers;
use crate::patience::{Exhausted, Patience};
use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Frame, SizeHint};
use shared::clock::{self, Time};
use shared::config::Limits;
use shared::error::{Code, Failure};
use shared::task;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{timeout, timeout_at};

/// Bytes, and time, spent on the rest of a body that is already refused. Closing on a caller that still sends would
/// reset the connection, and the refusal would be lost with it.
const DISCARD_BYTES_MAX: usize = 64 * 1024 * 1024;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// Reads the whole body.
///
/// # Errors
/// `body_too_large`; `request_timeout` when it has not arrived by the body's or the request's deadline, or comes to a halt;
/// `overloaded` when there is no room for it beside all other bodies.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limits: &Limits,
    bodies: &Arc<Bodies>,
    deadline: Time,
) -> Result<Bytes, Failure> {
    let bytes_max = limits.body_bytes_max;
    let declared = headers::content_length(headers).unwrap_or(0);
    if usize::try_from(declared).map_or(true, |bytes| bytes > bytes_max) {
        discard(headers, body);
        return Err(too_large(bytes_max));
    }
    let until = deadline.min(clock::now() + Duration::from_millis(limits.body_timeout_ms));
    let idle_max = Duration::from_millis(limits.body_idle_timeout_ms);
    let mut share = bodies.share();
    let steady = Steady { body: &mut body, patience: Patience::new(idle_max), share: &mut share };
    let whole = Limited::new(steady, bytes_max).collect();
    match timeout_at(clock::instant(until), whole).await {
        Err(_) => Err(Failure::new(Code::RequestTimeout, "The body did not arrive in time: send it faster, or less of it")),
        Ok(Err(error)) if error.is::<Exhausted>() => {
            Err(Failure::new(Code::RequestTimeout, "The body stopped coming: send it again without a pause"))
        }
        Ok(Ok(whole)) => Ok(share.bind(whole.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(headers, body);
            Err(too_large(bytes_max))
        }
        Ok(Err(error)) if error.is::<NoRoom>() => {
            discard(headers, body);
            Err(no_room())
        }
        Ok(Err(_)) => Err(Failure::new(Code::InvalidJson, "The body broke off: send it whole")),
    }
}

/// A body whose next piece must come in time, and find room.
struct Steady<'a> {
    body: &'a mut Body,
    patience: Patience,
    share: &'a mut Share,
}

impl hyper::body::Body for Steady<'_> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut *self.body).poll_frame(cx);
        self.patience.judge(cx, polled).map(|judged| match judged {
            Ok(frame) => frame.map(|frame| self.place(frame?)),
            Err(exhausted) => Some(Err(exhausted.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Steady<'_> {
    fn place(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BoxError> {
        self.share.grow(frame.data_ref().map_or(0, Bytes::len))?;
        Ok(frame)
    }
}

fn no_room() -> Failure {
    Failure::new(Code::Overloaded, "Too much is being sent here at once: try again").retry_after_ms(1_000)
}

fn too_large(bytes_max: usize) -> Failure {
    Failure::new(Code::BodyTooLarge, format!("The body is larger than {bytes_max} bytes: split the request"))
}

/// Reads on past a body nobody wants, beside the answer, unless its sender waits to be asked for it.
pub(crate) fn discard(headers: &HeaderMap, mut body: Body) {
    if headers::expects_continue(headers) {
        return;
    }
    let rest = async move {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    task::spawn("discard", async {
        let _ = timeout(DISCARD_TIME_MAX, rest).await; // Late or done: it is over.
    });
}
