//! edge: JSON lines: each row's object as it came, with its vector as the last member.

use super::{Columns, Vectors};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub(super) struct Writer {
    file: BufWriter<File>,
    /// The vectors' name as JSON, with its colon.
    name: String,
}

impl Writer {
    pub(super) fn new(path: &Path, vector_column: &str) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Ok(Self { file, name: format!("{}:", serde_json::Value::from(vector_column)) })
    }

    pub(super) fn write(&mut self, columns: &Columns, vectors: &Vectors) -> io::Result<()> {
        for (row, vector) in vectors.iter().enumerate() {
            let object = if let Columns::Json(objects) = columns { objects[row].as_str() } else { "{}" };
            let members = object.trim_end().strip_suffix('}').unwrap_or("{").trim_end();
            let comma = if members == "{" { "" } else { "," };
            write!(self.file, "{members}{comma}{}", self.name)?;
            serde_json::to_writer(&mut self.file, vector)?;
            self.file.write_all(b"}\n")?;
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_joins_the_objects_members() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.path(), "v").unwrap();
        let objects = [r#"{ "a": {} }"#, "{ }"].map(str::to_owned).to_vec();
        writer.write(&Columns::Json(objects), &[Some(vec![0.5, 1.0]), None]).unwrap();
        writer.write(&Columns::None, &[Some(vec![2.0])]).unwrap();
        writer.end().unwrap();
        let expected = "{ \"a\": {},\"v\":[0.5,1.0]}\n{\"v\":null}\n{\"v\":[2.0]}\n";
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), expected);
    }
}
