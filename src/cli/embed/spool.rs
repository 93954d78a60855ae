//! edge: the vectors that have come, each at its row's place in a file: they come in any order, and the output wants theirs.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Stands before a vector that is there. A place that nobody has written to holds zeros.
const THERE: [u8; 4] = *b"vec1";

pub(super) struct Spool {
    file: File,
    dimensions: usize,
    /// Where the file stands, so that rows in their order need no seeking.
    at: u64,
    buffer: Vec<u8>,
}

/// A spool that is read from its beginning.
pub(super) struct Reader {
    /// `None`: not one vector has come.
    file: Option<BufReader<File>>,
    buffer: Vec<u8>,
}

const fn stride(dimensions: usize) -> u64 {
    (THERE.len() + 4 * dimensions) as u64
}

impl Spool {
    /// A file for `rows` vectors of this length; what it held before stays.
    pub(super) fn open(path: &Path, rows: u64, dimensions: usize) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.set_len(rows * stride(dimensions))?;
        Ok(Self { file, dimensions, at: 0, buffer: Vec::new() })
    }

    pub(super) fn put(&mut self, row: u64, vector: &[f32]) -> io::Result<()> {
        debug_assert_eq!(vector.len(), self.dimensions);
        self.buffer.clear();
        self.buffer.extend_from_slice(&THERE);
        self.buffer.extend(vector.iter().flat_map(|number| number.to_le_bytes()));
        let place = row * stride(self.dimensions);
        if place != self.at {
            self.file.seek(SeekFrom::Start(place))?;
        }
        self.file.write_all(&self.buffer)?;
        self.at = place + self.buffer.len() as u64;
        Ok(())
    }

    /// What was put is on the disk when this returns.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Reader {
    /// `dimensions`: `None` where not one vector has come, and so there is no file.
    pub(super) fn open(path: &Path, dimensions: Option<usize>) -> io::Result<Self> {
        let file = dimensions.map(|_| File::open(path)).transpose()?;
        let file = file.map(|file| BufReader::with_capacity(1 << 20, file));
        Ok(Self { file, buffer: vec![0; THERE.len() + 4 * dimensions.unwrap_or_default()] })
    }

    /// The next row's vector. `None`: it has none.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<f32>>> {
        let Some(file) = &mut self.file else { return Ok(None) };
        file.read_exact(&mut self.buffer)?;
        let (there, numbers) = self.buffer.split_at(THERE.len());
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok((there == THERE).then(|| numbers.chunks_exact(4).map(number).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_back_at_their_rows_and_nothing_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors");
        let mut spool = Spool::open(&path, 4, 2).unwrap();
        spool.put(3, &[3.0, 0.5]).unwrap();
        spool.put(1, &[0.0, 0.0]).unwrap();
        let mut again = Spool::open(&path, 4, 2).unwrap();
        again.put(2, &[2.0, -1.0]).unwrap();
        let mut reader = Reader::open(&path, Some(2)).unwrap();
        let rows: Vec<_> = (0..4).map(|_| reader.next().unwrap()).collect();
        assert_eq!(rows, [None, Some(vec![0.0, 0.0]), Some(vec![2.0, -1.0]), Some(vec![3.0, 0.5])]);
    }
}
