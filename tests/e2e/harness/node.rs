//! edge: one process of the executable under test: a role, or a sandbox backend.

use super::{SOON, probe, program, until};
use loadtest::child::Child;
use std::path::{Path, PathBuf};

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Sandbox,
    /// All roles in one process.
    Up,
    Ingress,
    Scheduler,
    Worker,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Up => "up",
            Self::Ingress => "ingress",
            Self::Scheduler => "scheduler",
            Self::Worker => "worker",
        }
    }

    /// Whether callers send requests to it.
    pub(crate) const fn takes_requests(self) -> bool {
        matches!(self, Self::Up | Self::Ingress)
    }

    /// The line of its banner that ends in its address.
    const fn address_marker(self) -> &'static str {
        match self {
            Self::Sandbox | Self::Up | Self::Ingress => "listening on ",
            Self::Scheduler | Self::Worker => "metrics on ",
        }
    }
}

/// A process that can be ended and started again.
pub(crate) struct Node {
    pub(crate) role: Role,
    index: usize,
    args: Vec<String>,
    folder: PathBuf,
    starts: usize,
    address: String,
    pub(crate) child: Option<Child>,
}

impl Node {
    pub(crate) fn new(role: Role, index: usize, args: Vec<String>, folder: &Path) -> Self {
        Self { role, index, args, folder: folder.to_owned(), starts: 0, address: String::new(), child: None }
    }

    /// Where it listens: for requests, or for questions about its metrics.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts it without waiting, so that several start at once.
    pub(crate) fn launch(&mut self, env: &[(&str, &str)]) {
        let mut command = program::tidemill();
        command.arg(self.role.name()).args(&self.args).envs(env.iter().copied()).current_dir(&self.folder);
        let name = format!("{}-{}-{}", self.role.name(), self.index, self.starts);
        self.starts += 1;
        self.child = Some(Child::start(&name, command, &self.folder).unwrap_or_else(|error| panic!("{error}")));
    }

    /// Waits until it can do its work.
    pub(crate) async fn ready(&mut self) {
        let child = self.child.as_mut().expect("it was launched");
        self.address = child.printed(self.role.address_marker(), SOON).await.unwrap_or_else(|error| panic!("{error}"));
        self.keep_address();
        let page = if self.role == Role::Sandbox { "/stats" } else { "/readyz" };
        let address = self.address.clone();
        until(&format!("{} {} is ready", self.role.name(), self.index), SOON, async || probe::get(&address, page).is_some()).await;
    }

    /// Whoever knows it must find it again after a restart.
    fn keep_address(&mut self) {
        let (_, address) = self.address.split_once("://").expect("an address has a scheme");
        for arg in self.args.iter_mut().filter(|arg| *arg == "127.0.0.1:0") {
            address.clone_into(arg);
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill();
        }
    }
}
