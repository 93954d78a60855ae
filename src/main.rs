//! `tidemill`: one executable, a subcommand per role. Each is a thin file in `cli/`: configure, start, wait, drain.

mod cli;

use clap::Parser;
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Requests allocate on one thread and free on another: where the system's allocator costs most.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // One TLS provider for the whole process, before anything could use another.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return cli::out::refuse("another TLS provider was installed first: this is a defect, please report it");
    }
    let command = cli::Cli::parse().command;
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli::run(command));
            shared::telemetry::flush_logs();
            code
        }
        Err(error) => cli::out::refuse(&format!("the runtime cannot start: {error}")),
    }
}
