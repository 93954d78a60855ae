//! `tidemill keys`: issues, lists, rotates and blocks keys, at the administration's listener.

use super::admin::{Admin, Client, escape};
use super::out::{self, Failed};
use super::span;
use serde_json::{Value, json};
use shared::clock;
use std::time::Duration;

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
    /// Issue a key. It is printed this once.
    Create(Create),
    /// List keys, without their secrets.
    List {
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Give a key a new secret, printed this once. The old one works until the overlap ends.
    Rotate {
        id: String,
        /// Such as 12h; 0s ends the old secret at once. Default: a day.
        #[arg(long, value_parser = span::parse)]
        overlap: Option<Duration>,
    },
    /// Refuse a key from now on, at every ingress.
    Block { id: String },
    /// Accept a blocked key again.
    Unblock { id: String },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Whose key it is.
    #[arg(long)]
    tenant: String,
    /// What it is for.
    #[arg(long, default_value = "")]
    name: String,
    /// The models it may use, such as `chat-small,embed-*`. Default: all of its tenant's role.
    #[arg(long, value_delimiter = ',')]
    models: Option<Vec<String>>,
    /// It expires after this, such as 90d. Default: never.
    #[arg(long, value_parser = span::parse)]
    expires: Option<Duration>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let client = Client::new(&args.admin)?;
    match &args.command {
        Command::Create(create) => {
            let key = client.post("keys", &wanted(create)).await?;
            issued(&key, args.json);
        }
        Command::List { tenant } => list(&client, tenant.as_deref(), args.json).await?,
        Command::Rotate { id, overlap } => {
            let body = overlap.map_or_else(|| json!({}), |overlap| json!({ "overlap_s": overlap.as_secs() }));
            let key = client.post(&format!("keys/{}/rotate", escape(id)), &body).await?;
            issued(&key, args.json);
        }
        Command::Block { id } => show(&client.post(&format!("keys/{}/block", escape(id)), &json!({})).await?, args.json),
        Command::Unblock { id } => show(&client.post(&format!("keys/{}/unblock", escape(id)), &json!({})).await?, args.json),
    }
    Ok(())
}

fn wanted(create: &Create) -> Value {
    let mut body = json!({ "tenant": create.tenant, "name": create.name });
    if let Some(models) = &create.models {
        body["scope"] = json!({ "models": models });
    }
    if let Some(expires) = create.expires {
        body["expires_at"] = (clock::unix_seconds() + expires.as_secs()).into();
    }
    body
}

/// The key alone on standard output, so that it can be piped to where it is kept.
fn issued(key: &Value, as_json: bool) {
    if as_json {
        return out::line(&key.to_string());
    }
    out::line(key["key"].as_str().unwrap_or_default());
}

async fn list(client: &Client, tenant: Option<&str>, as_json: bool) -> Result<(), Failed> {
    let tenant = tenant.map(|tenant| format!("&tenant={}", escape(tenant))).unwrap_or_default();
    client.pages(&format!("keys?limit=1000{tenant}"), "id", |key| show(key, as_json)).await
}

fn show(key: &Value, as_json: bool) {
    if as_json {
        return out::line(&key.to_string());
    }
    let text = |field: &str| key[field].as_str().unwrap_or_default();
    let state = if key["blocked"] == true { "blocked" } else { "active" };
    let expires = key["expires_at"].as_u64().map_or_else(|| "never".to_owned(), |at| at.to_string());
    out::line(&format!("{:24} {:24} {:8} expires {expires:12} {}", text("id"), text("tenant"), state, text("name")));
}
