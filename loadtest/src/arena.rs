//! edge: the ground of a measurement: a temporary folder, the backend, and the programs that are put in front of it.

use crate::backend::Costs;
use crate::child::{Child, ChildError};
use crate::contender::Stage;
use crate::nats;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What is used.
#[derive(Clone, Debug)]
pub struct Programs {
    pub tidemill: PathBuf,
    pub backend: Backend,
    pub costs: Costs,
    /// Where peers are installed.
    pub peers: PathBuf,
}

/// The backend behind all contenders.
#[derive(Clone, Debug)]
pub enum Backend {
    /// This program, started as `loadtest backend`.
    Program(PathBuf),
    /// A mock that runs, with the same costs.
    Url(String),
    /// Another that runs, and its embedding model, which pads.
    Model { url: String, model: String },
}

impl Backend {
    /// Its only model, if it is not the mock.
    pub fn model(&self) -> Option<String> {
        match self {
            Self::Program(_) | Self::Url(_) => None,
            Self::Model { model, .. } => Some(model.clone()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("a file of the measurement: {0}")]
    File(#[from] std::io::Error),
    #[error("there is no `{0}`; build it with `cargo build --release --workspace`, or name it with --tidemill")]
    NoTidemill(PathBuf),
}

/// The ground, with its backend running. Both go with it.
#[derive(Debug)]
pub struct Arena {
    _backend: Option<Child>,
    stage: Stage,
    folder: TempDir,
}

const BACKEND_TIMEOUT: Duration = Duration::from_secs(10);

impl Arena {
    pub async fn start(programs: &Programs) -> Result<Self, ArenaError> {
        if !programs.tidemill.is_file() {
            return Err(ArenaError::NoTidemill(programs.tidemill.clone()));
        }
        let folder = tempfile::tempdir()?;
        let (backend, url) = start_backend(programs, folder.path()).await?;
        let stage = Stage {
            folder: folder.path().to_owned(),
            backend: url,
            model: programs.backend.model(),
            // Contenders run in folders of their own.
            tidemill: std::path::absolute(&programs.tidemill)?,
            nats_server: nats::find(Path::new(".")).map(std::path::absolute).transpose()?,
            peers: std::path::absolute(&programs.peers)?,
            tenants: 1,
            extra_models: 0,
        };
        Ok(Self { _backend: backend, stage, folder })
    }

    /// What contenders are started with: their files in a folder of this name, so many tenants, so many more models.
    pub fn stage(&self, folder: &str, tenants: usize, extra_models: usize) -> Stage {
        Stage { folder: self.folder.path().join(folder), tenants, extra_models, ..self.stage.clone() }
    }
}

async fn start_backend(programs: &Programs, folder: &Path) -> Result<(Option<Child>, String), ChildError> {
    let program = match &programs.backend {
        Backend::Url(url) | Backend::Model { url, .. } => return Ok((None, url.clone())),
        Backend::Program(program) => program,
    };
    let mut command = Command::new(program);
    command.args(["backend", "--listen", "127.0.0.1:0"]).args(programs.costs.arguments());
    let mut child = Child::start_tree("backend", command, folder)?;
    let url = child.printed("listening on ", BACKEND_TIMEOUT).await?;
    Ok((Some(child), url))
}
