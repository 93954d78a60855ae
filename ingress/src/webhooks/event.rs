//! core: what a tenant is told: OpenAI's event, which its SDKs read.

use serde::Serialize;
use shared::config::EventKind;

/// That something has ended. The same end is the same event, whoever announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    kind: EventKind,
    object: Box<str>,
    created_at: u64,
}

impl Event {
    /// `object` is the id of what has ended (`batch_…`, `resp_…`, `job_…`), `created_at` the time of its end in seconds since
    /// 1970.
    pub(crate) fn new(kind: EventKind, object: &str, created_at: u64) -> Self {
        Self { kind, object: object.into(), created_at }
    }

    pub(super) const fn kind(&self) -> EventKind {
        self.kind
    }

    /// `evt_` and 32 characters.
    pub(super) fn id(&self) -> String {
        let hash = blake3::hash(format!("{} {}", self.kind.as_str(), self.object).as_bytes()).to_hex();
        format!("evt_{}", &hash[..32])
    }

    /// What is posted.
    pub(super) fn body(&self) -> String {
        let (id, data) = (self.id(), Data { id: &self.object });
        let body = Body { id: &id, object: "event", created_at: self.created_at, kind: self.kind, data };
        serde_json::to_string(&body).expect("an event is plain data")
    }
}

/// In OpenAI's order.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    object: &'static str,
    created_at: u64,
    #[serde(rename = "type")]
    kind: EventKind,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_openais_shape_and_one_id() {
        let event = Event::new(EventKind::BatchCompleted, "batch_1", 7);
        let expected = r#"{"id":"ID","object":"event","created_at":7,"type":"batch.completed","data":{"id":"batch_1"}}"#;
        assert_eq!(event.body(), expected.replace("ID", &event.id()));
        assert_eq!(Event::new(EventKind::BatchCompleted, "batch_1", 9).id(), event.id());
        for other in [(EventKind::BatchFailed, "batch_1"), (EventKind::BatchCompleted, "batch_2")] {
            assert_ne!(Event::new(other.0, other.1, 7).id(), event.id());
        }
    }
}
