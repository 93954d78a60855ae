//! `tidemill dead`: lists the jobs that failed for good, runs them again, or puts them away, at the administration's listener.

use super::admin::{Admin, Client, escape};
use super::out::{self, Failed};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    admin: Admin,
    /// Print the answers as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List them: when, whose, which model, and why.
    List {
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Print all that is known of one.
    Show { job: String },
    /// Run a job's request again; prints the id of the new job.
    Redrive { job: String },
    /// List it no longer.
    Purge { job: String },
}

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let client = Client::new(&args.admin)?;
    match &args.command {
        Command::List { tenant } => list(&client, tenant.as_deref(), args.json).await?,
        Command::Show { job } => out::line(&format!("{:#}", client.get(&path(job)).await?)),
        Command::Redrive { job } => {
            let answer = client.post(&format!("{}/redrive", path(job)), &json!({})).await?;
            print(&answer, args.json, |answer| text(answer, "job").to_owned());
        }
        Command::Purge { job } => {
            let answer = client.delete(&path(job)).await?;
            print(&answer, args.json, |answer| format!("{} is put away", text(answer, "job")));
        }
    }
    Ok(())
}

fn path(job: &str) -> String {
    format!("dead-letters/{}", escape(job))
}

async fn list(client: &Client, tenant: Option<&str>, as_json: bool) -> Result<(), Failed> {
    let tenant = tenant.map(|tenant| format!("&tenant={}", escape(tenant))).unwrap_or_default();
    client.pages(&format!("dead-letters?limit=1000{tenant}"), "job", |letter| print(letter, as_json, line)).await
}

fn line(letter: &Value) -> String {
    let died_ms = letter["died_ms"].as_u64().unwrap_or_default();
    let [job, tenant, model, code, reason] = ["job", "tenant", "model", "code", "reason"].map(|field| text(letter, field));
    format!("{job:36} {died_ms:13} {tenant:24} {model:24} {code:20} {reason}")
}

fn print(answer: &Value, as_json: bool, show: impl Fn(&Value) -> String) {
    out::line(&if as_json { answer.to_string() } else { show(answer) });
}

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_default()
}
