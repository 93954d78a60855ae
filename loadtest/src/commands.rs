//! The subcommands, and what several of them need.

use loadtest::contender::{self, Contender};
use loadtest::texts;
use std::io::Write;
use std::path::Path;

pub(crate) mod backend;
pub(crate) mod batching;
pub(crate) mod compare;
pub(crate) mod growth;
pub(crate) mod relay;
pub(crate) mod run;

pub(crate) type Failed = Box<dyn std::error::Error>;

/// Different texts in one run.
const TEXTS: usize = 512;

/// The contenders of these names; without names all gateways.
fn contenders(only: Option<&[String]>) -> Result<Vec<Contender>, Failed> {
    let named = |name: &String| {
        let found = contender::ALL.into_iter().find(|contender| contender.name() == name);
        found.ok_or_else(|| format!("there is no contender `{name}`; there are {}", contender::ALL.map(Contender::name).join(", ")).into())
    };
    only.map_or_else(|| Ok(contender::GATEWAYS.to_vec()), |names| names.iter().map(named).collect())
}

fn read_texts(file: Option<&Path>) -> Result<Vec<String>, Failed> {
    let texts = match file {
        Some(file) => texts::from_file(file)?,
        None => texts::descriptions(TEXTS),
    };
    if texts.lines.is_empty() {
        return Err("the file of texts is empty: give one text a line".into());
    }
    Ok(texts.lines)
}

fn print(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{}", text.trim_end())
}
