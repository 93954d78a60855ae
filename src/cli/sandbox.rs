//! `tidemill sandbox`: the sandbox backend as an HTTP server, to point backends, peers and tests at.

use super::out::{self, Failed};
use super::signals;
use shared::config::SandboxConfig;
use shared::telemetry;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use workers::sandbox::{self, Sandbox, Source};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to serve.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Fixed cost of one embeddings call, in milliseconds.
    #[arg(long, default_value_t = 0.0)]
    a_ms: f64,
    /// Cost of each input of an embeddings call, in milliseconds.
    #[arg(long, default_value_t = 0.0)]
    b_ms: f64,
    /// Cost of each token of an embeddings call, padding included, in milliseconds.
    #[arg(long, default_value_t = 0.0)]
    padded_token_ms: f64,
    /// Time to the first token of a generation, in milliseconds.
    #[arg(long, default_value_t = 0.0)]
    first_token_ms: f64,
    /// Time of each further token, in milliseconds.
    #[arg(long, default_value_t = 0.0)]
    token_ms: f64,
    /// Calls at once; more wait their turn. 0: no limit, and the default but for a model, which takes one at a time.
    #[arg(long)]
    concurrency: Option<u32>,
    /// Length of an embedding unless the caller asks for another.
    #[arg(long, default_value_t = 64)]
    dimensions: usize,
    /// Key of the hash that answers carry.
    #[arg(long, default_value = "tidemill")]
    hash_key: String,
    /// A model's folder (config.json, tokenizer.json, model.safetensors): embeddings are this model's then.
    #[arg(long, value_name = "FOLDER")]
    model_dir: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    telemetry::init_logs("info");
    let listener = TcpListener::bind(args.listen).map_err(|error| Failed::broken(format!("{}: {error}", args.listen)))?;
    let config = SandboxConfig {
        a_ms: args.a_ms,
        b_ms: args.b_ms,
        padded_token_ms: args.padded_token_ms,
        first_token_ms: args.first_token_ms,
        token_ms: args.token_ms,
        concurrency: args.concurrency.unwrap_or_else(|| args.model_dir.is_some().into()),
        dimensions: args.dimensions,
        hash_key: args.hash_key,
        faults: Vec::new(),
    };
    let source = args.model_dir.as_deref().map_or(Ok(Source::Hash), Source::model).map_err(Failed::refused)?;
    let server = sandbox::serve(listener, Sandbox::with_source(config, source)).map_err(Failed::broken)?;
    out::line(&format!("listening on http://{}", server.addr()));
    signals::stop().await
}
