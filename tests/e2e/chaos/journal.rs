//! edge: the log of a run, a line of JSON for everything that callers, injections and records showed. The checker reads nothing else.

use loadtest::clock::Stopwatch;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// One line: what was seen, and how many milliseconds after the beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) ms: u64,
    #[serde(flatten)]
    pub(super) entry: Entry,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Entry {
    Began {
        seed: u64,
        backends: usize,
    },
    /// A caller asks. `told` is what the prompt tells the backend to do wrong.
    Asked {
        call: u64,
        kind: Kind,
        why: Why,
        ingress: usize,
        told: String,
    },
    /// A job's submission, or a batch with these rows, was answered with this id.
    Accepted {
        id: String,
        calls: Vec<u64>,
    },
    /// What became of a call, as seen at this moment. Of a job it is looked at again at the end.
    Ended {
        call: u64,
        outcome: Outcome,
    },
    Injected {
        id: usize,
        class: String,
        targets: Vec<String>,
    },
    Over {
        id: usize,
    },
    /// A process that nobody had killed was found ended, and was started again.
    Died {
        who: String,
        after_ms: u64,
    },
    /// Nothing is wrong any more.
    Healed,
    /// A record of the usage journal.
    Billed {
        request: String,
        end: String,
        tokens: u64,
    },
    /// The usage journal has more behind this position, where a page of it said that there is no more.
    KeptBack {
        behind: u64,
    },
    /// What the system says that a tenant has used.
    Spent {
        tenant: String,
        tokens: u64,
    },
    /// Reservations that a tenant has open when all has ended.
    Reserved {
        tenant: String,
        open: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Chat,
    Stream,
    Embed,
    Job,
    ChatRow,
    EmbedRow,
}

impl Kind {
    /// Its caller waits, and may be told of a failure.
    pub(super) const fn is_interactive(self) -> bool {
        matches!(self, Self::Chat | Self::Stream | Self::Embed)
    }
}

/// Why a call was made: only the plain load counts as availability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    Load,
    Flood,
    Storm,
    Poison,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// `digest` is of the text or the vector; `request` is the id under which it was billed, where it was told.
    Answered { digest: String, request: String },
    /// An error with a code; a status of 0 is a job's or a row's.
    Refused { status: u16, code: String },
    /// A stream that had begun ended in an error event.
    Interrupted { code: String },
    /// A stream that had begun ended without a word.
    Cut,
    /// The connection was refused, or broke.
    NoConnection { why: String },
    /// The caller left on purpose.
    Left,
    /// No end within the caller's patience, which is longer than its deadline.
    Forgotten,
}

/// Written by all that happens at once.
pub(super) struct Journal {
    began: Stopwatch,
    file: Mutex<BufWriter<File>>,
}

impl Journal {
    pub(super) fn create(path: &Path) -> Self {
        let file = File::create(path).expect("the folder is writable");
        Self { began: Stopwatch::start(), file: Mutex::new(BufWriter::new(file)) }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn note(&self, entry: Entry) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).expect("a run of less than an aeon");
        let line = serde_json::to_string(&Line { ms, entry }).expect("plain data");
        let mut file = self.file.lock().expect("nobody panics while writing");
        writeln!(file, "{line}").expect("the folder is writable");
    }

    pub(super) fn flush(&self) {
        self.file.lock().expect("nobody panics while writing").flush().expect("the folder is writable");
    }
}

/// Reads a log again.
pub(super) fn read(path: &Path) -> Vec<Line> {
    let lines = BufReader::new(File::open(path).expect("the log is there")).lines();
    lines.map(|line| serde_json::from_str(&line.expect("text")).expect("a line of the log")).collect()
}
