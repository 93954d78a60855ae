//! edge: what has been done, line by line in a file: after a kill, the next run goes on from there. An entry counts when it is
//! on the disk, its line's end included.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

/// What a run is of: another one does not go on with its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Purpose {
    /// Hash of the input file.
    pub(super) input: String,
    pub(super) column: String,
    pub(super) model: String,
    pub(super) dimensions: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum Entry {
    /// The first.
    Begun { rows: u64, purpose: Purpose },
    /// The texts of the next rows are at the server.
    Uploaded { part: usize, rows: Range<u64>, file: String },
    /// A batch of them runs.
    Submitted { part: usize, batch: String },
    /// The server found the batch wrong as a whole: the same file is to be submitted again when that is mended.
    Refused { part: usize },
    /// The part's vectors are in the spool, and its errors in their file.
    Fetched { part: usize, dimensions: Option<usize>, failed: u64 },
}

pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// The journal and its entries so far, for this process alone. What a kill left of a line is cut off.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Entry>)> {
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        file.try_lock().map_err(|_| io::Error::other("another run is at work on this output"))?;
        let text = io::read_to_string(&file)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        let entries = text[..whole].lines().map(serde_json::from_str).collect::<Result<_, _>>();
        Ok((Self { file }, entries.map_err(io::Error::other)?))
    }

    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back_and_a_torn_one_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let entries =
            [Entry::Uploaded { part: 0, rows: 0..7, file: "file-1".into() }, Entry::Submitted { part: 0, batch: "batch_1".into() }];
        let (mut journal, _) = Journal::open(&path).unwrap();
        entries.iter().for_each(|entry| journal.write(entry).unwrap());
        assert!(Journal::open(&path).is_err(), "two runs would do everything twice");
        drop(journal);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(br#"{"entry":"cu"#).unwrap();

        let (mut journal, read) = Journal::open(&path).unwrap();
        assert_eq!(read, entries);
        let refused = Entry::Refused { part: 0 };
        journal.write(&refused).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1.last(), Some(&refused));
    }
}
