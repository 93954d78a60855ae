//! `tidemill batch`: submits a file of requests as a batch, watches it, and fetches what came of it.

use super::api::{Api, Batch, Server, State};
use super::out::{self, Failed};
use super::progress::Progress;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Between two looks at a batch.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long `wait` and `fetch` go on while the server cannot be reached: a restart, or a take-over.
const PATIENCE: Duration = Duration::from_secs(300);

/// The same of a command that somebody waits for.
const PATIENCE_BRIEF: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
    /// Print the batch as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Upload a file of requests and make a batch of it. Its id is printed.
    Submit(Submit),
    /// Print how a batch stands.
    Status { id: String },
    /// Wait until a batch has ended. Exits with 0 when every line was answered, with 3 when some were not.
    Wait { id: String },
    /// Cancel a batch. What was answered until then can be fetched.
    Cancel { id: String },
    /// Write the answers to a file, and the lines that failed to another.
    Fetch(Fetch),
}

#[derive(Debug, clap::Args)]
struct Submit {
    /// Lines of `{"custom_id": …, "method": "POST", "url": …, "body": {…}}`.
    file: PathBuf,
    /// Such as /v1/embeddings. Default: what the first line says.
    #[arg(long)]
    endpoint: Option<String>,
    /// Within what time it must be done, such as 24h.
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    completion_window: String,
}

#[derive(Debug, clap::Args)]
struct Fetch {
    id: String,
    /// The file for the answers.
    #[arg(short, long)]
    output: PathBuf,
    /// The file for the lines that failed. Default: OUTPUT.errors.jsonl.
    #[arg(long)]
    errors: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let patience = if matches!(args.command, Command::Wait { .. } | Command::Fetch(_)) { PATIENCE } else { PATIENCE_BRIEF };
    let api = Api::new(&args.server, patience)?;
    match &args.command {
        Command::Submit(submit) => {
            let batch = self::submit(&api, submit).await?;
            out::line(&if args.json { batch.to_string() } else { Batch::read(&batch)?.id });
        }
        Command::Status { id } => show(&api.get(&path(id)).await?, args.json)?,
        Command::Wait { id } => return wait(&api, id, args.json).await,
        Command::Cancel { id } => show(&api.post(&format!("{}/cancel", path(id)), &json!({})).await?, args.json)?,
        Command::Fetch(fetch) => return self::fetch(&api, fetch).await,
    }
    Ok(())
}

async fn submit(api: &Api, submit: &Submit) -> Result<Value, Failed> {
    let endpoint = submit.endpoint.clone().map_or_else(|| endpoint(&submit.file), Ok)?;
    let file = api.upload(&submit.file).await?;
    api.submit(&file, &endpoint, &submit.completion_window, false).await
}

/// What the first line of a file asks for.
fn endpoint(file: &Path) -> Result<String, Failed> {
    let refused = |why: &dyn std::fmt::Display| Failed::refused(format!("{}: {why}", file.display()));
    let opened = std::fs::File::open(file).map_err(|error| refused(&error))?;
    let mut line = String::new();
    BufReader::new(opened).read_line(&mut line).map_err(|error| refused(&error))?;
    let url = serde_json::from_str::<Value>(&line).ok().and_then(|line| line["url"].as_str().map(str::to_owned));
    url.ok_or_else(|| refused(&"the first line is no request with a `url`; mend it, or say --endpoint"))
}

async fn wait(api: &Api, id: &str, as_json: bool) -> Result<(), Failed> {
    let mut progress = Progress::new("lines", 0);
    loop {
        let json = api.get(&path(id)).await?;
        let batch = Batch::read(&json)?;
        let counts = batch.counts();
        progress.show(counts.total, counts.completed + counts.failed, counts.failed);
        if batch.has_ended() {
            progress.end();
            show(&json, as_json)?;
            return judged(&batch);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How a batch that has ended counts.
fn judged(batch: &Batch) -> Result<(), Failed> {
    match batch.status {
        State::Completed if batch.counts().failed == 0 => Ok(()),
        State::Completed => Err(Failed::partial(format!("{} lines failed: fetch the batch to see why", batch.counts().failed))),
        State::Failed => Err(Failed::broken(batch.complaints())),
        other => Err(Failed::broken(format!("the batch is {}: fetch it for the lines that were answered", other.as_str()))),
    }
}

async fn fetch(api: &Api, fetch: &Fetch) -> Result<(), Failed> {
    let batch = Batch::read(&api.get(&path(&fetch.id)).await?)?;
    if batch.output_file_id.is_none() && batch.error_file_id.is_none() {
        return Err(Failed::broken(format!("the batch is {} and has no results", batch.status.as_str())));
    }
    let errors = fetch.errors.clone().unwrap_or_else(|| with_ending(&fetch.output, ".errors.jsonl"));
    for (id, target) in [(&batch.output_file_id, &fetch.output), (&batch.error_file_id, &errors)] {
        if let Some(id) = id {
            download(api, id, target).await?;
            out::note(&format!("wrote {}", target.display()));
        }
    }
    if batch.has_ended() { Ok(()) } else { Err(Failed::partial(format!("the batch is {}: there will be more", batch.status.as_str()))) }
}

/// A file that is there is whole: it gets its name when all of it has come.
async fn download(api: &Api, id: &str, target: &Path) -> Result<(), Failed> {
    let failed = |error: std::io::Error| Failed::broken(format!("{}: {error}", target.display()));
    let partial = with_ending(target, ".part");
    api.persist(async || {
        let mut file = File::create(&partial).await.map_err(failed)?;
        api.content(id).await?.copy(&mut file).await?;
        Ok(file.flush().await.map_err(failed)?)
    })
    .await?;
    tokio::fs::rename(&partial, target).await.map_err(failed)
}

pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn path(id: &str) -> String {
    format!("batches/{}", super::admin::escape(id))
}

fn show(json: &Value, as_json: bool) -> Result<(), Failed> {
    if as_json {
        out::line(&json.to_string());
        return Ok(());
    }
    let batch = Batch::read(json)?;
    let counts = batch.counts();
    let answered = format!("{} of {} lines answered, {} failed", counts.completed, counts.total, counts.failed);
    out::line(&format!("{}  {:11}  {answered}  {}", batch.id, batch.status.as_str(), batch.endpoint));
    if batch.status == State::Failed {
        out::line(&format!("  {}", batch.complaints()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_that_of_the_first_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"custom_id\":\"1\",\"url\":\"/v1/embeddings\"}\n{}\n").unwrap();
        assert_eq!(endpoint(file.path()).unwrap(), "/v1/embeddings");
        std::fs::write(file.path(), "text\n").unwrap();
        assert!(endpoint(file.path()).is_err());
    }
}
