//! `tidemill check`: says what is wrong with a configuration, or prints it with every default and secrets hidden.

use super::out::{self, Failed};
use super::setup;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failed> {
    let config = setup::read_config(&args.config)?;
    for warning in &config.warnings {
        out::line(&format!("# warning: {warning}"));
    }
    out::line(config.to_yaml().trim_end());
    Ok(())
}
