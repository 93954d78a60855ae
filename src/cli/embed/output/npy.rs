//! edge: a NumPy array of 32-bit floats, rows by dimensions. A row without a vector holds NaN.

use super::Vectors;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// The format's own: what stands before the numbers is a multiple of this long.
const ALIGNMENT: usize = 64;

pub(super) struct Writer {
    file: BufWriter<File>,
    dimensions: usize,
}

impl Writer {
    pub(super) fn new(path: &Path, rows: u64, dimensions: usize) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&head(rows, dimensions))?;
        Ok(Self { file, dimensions })
    }

    pub(super) fn write(&mut self, vectors: &Vectors) -> io::Result<()> {
        let missing = vec![f32::NAN; self.dimensions];
        for vector in vectors {
            let numbers = vector.as_ref().unwrap_or(&missing).iter().flat_map(|number| number.to_le_bytes());
            self.file.write_all(&numbers.collect::<Vec<u8>>())?;
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// Version 1.0: a mark, the length of what follows, and a Python dictionary padded with spaces.
fn head(rows: u64, dimensions: usize) -> Vec<u8> {
    let mut words = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}").into_bytes();
    let mark = b"\x93NUMPY\x01\x00";
    let length = (mark.len() + 2 + words.len() + 1).next_multiple_of(ALIGNMENT) - mark.len() - 2;
    words.resize(length - 1, b' ');
    words.push(b'\n');
    let length = u16::try_from(length).expect("two numbers do not take 64 KiB");
    [mark.as_slice(), &length.to_le_bytes(), &words].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_begin_on_a_multiple_of_64_after_a_head_that_says_what_they_are() {
        let head = head(12_345, 384);
        assert_eq!((head.len() % ALIGNMENT, &head[..8], head.last()), (0, b"\x93NUMPY\x01\x00".as_slice(), Some(&b'\n')));
        assert_eq!(usize::from(u16::from_le_bytes([head[8], head[9]])), head.len() - 10);
        assert!(String::from_utf8_lossy(&head).contains("'shape': (12345, 384)"));
    }
}
