//! edge: one child process: started with its output in files, asked to end, or killed. It never outlives its guard.

use crate::clock::{Stopwatch, block_for};
use crate::watchdog::Watchdog;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// How often a condition outside this process is looked at.
pub const POLL: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("{name} cannot be started: {source}")]
    Start { name: String, source: std::io::Error },
    #[error("{name} ended with {status} before it printed `{line}`; its log ends: {log}")]
    Ended { name: String, status: ExitStatus, line: String, log: String },
    #[error("{name} did not print `{line}` within {within:?}; its log ends: {log}")]
    Silent { name: String, line: String, within: Duration, log: String },
}

/// A running process whose standard output and error go to `NAME.out` and `NAME.err` of a folder.
#[derive(Debug)]
pub struct Child {
    name: String,
    /// Ends the process's descendants with it. Dropped before the process is buried: till then its id is its own.
    watchdog: Option<Watchdog>,
    process: std::process::Child,
    out: PathBuf,
    err: PathBuf,
}

impl Child {
    /// Starts `command`; `name` must be new in `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self, ChildError> {
        Self::spawn(name, &mut command, folder)
    }

    /// The same for a program that starts others: all of them end with the guard, even if this process is killed.
    pub fn start_tree(name: &str, mut command: Command, folder: &Path) -> Result<Self, ChildError> {
        let mut child = Self::spawn(name, command.process_group(0), folder)?;
        let watchdog =
            Watchdog::over(child.id()).map_err(|source| ChildError::Start { name: format!("the watchdog of {name}"), source })?;
        child.watchdog = Some(watchdog);
        Ok(child)
    }

    fn spawn(name: &str, command: &mut Command, folder: &Path) -> Result<Self, ChildError> {
        let out = folder.join(format!("{name}.out"));
        let err = folder.join(format!("{name}.err"));
        let process = spawn(command, &out, &err)
            .map_err(|source| ChildError::Start { name: format!("{name} ({})", command.get_program().to_string_lossy()), source })?;
        Ok(Self { name: name.to_owned(), watchdog: None, process, out, err })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits for a line of its output that holds `marker`, and returns what follows up to the next space.
    pub async fn printed(&mut self, marker: &str, within: Duration) -> Result<String, ChildError> {
        let began = Stopwatch::start();
        loop {
            if let Some(rest) = after(&self.output(), marker) {
                return Ok(rest);
            }
            let line = marker.to_owned();
            if let Some(status) = self.exited() {
                return Err(ChildError::Ended { name: self.name.clone(), status, line, log: tail(&self.log()) });
            }
            if began.elapsed() > within {
                return Err(ChildError::Silent { name: self.name.clone(), line, within, log: tail(&self.log()) });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Asks it to look at its files anew (SIGHUP).
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Sends it a signal by its short name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: no unsafe call, and no program that a slim system lacks.
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.process.id())).stderr(Stdio::null()).status();
        debug_assert!(sent.is_ok(), "sh runs everywhere");
    }

    /// Ends it at once (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.watchdog.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Blocks until it has ended; `None` when it has not within the time.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let began = Stopwatch::start();
        while began.elapsed() < within {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            block_for(POLL);
        }
        None
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log, for a message.
pub fn tail(log: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn after(output: &str, marker: &str) -> Option<String> {
    // A line is whole only with its end: half an address must not be taken for one.
    let whole = &output[..=output.rfind('\n')?];
    let line = whole.lines().find(|line| line.contains(marker))?;
    let rest = &line[line.find(marker)? + marker.len()..];
    Some(rest.split_whitespace().next().unwrap_or_default().to_owned())
}

fn spawn(command: &mut Command, out: &Path, err: &Path) -> std::io::Result<std::process::Child> {
    command.stdin(Stdio::null()).stdout(File::create(out)?).stderr(File::create(err)?).spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn half_a_line_is_not_read() {
        assert_eq!(after("ready\nlistening on http://127.0.0.1:80", "listening on "), None);
        assert_eq!(after("listening on http://127.0.0.1:80 now\n", "listening on ").unwrap(), "http://127.0.0.1:80");
    }

    #[tokio::test]
    async fn a_process_that_ends_early_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Child::start("early", sh("echo broken >&2; exit 3"), dir.path()).unwrap();
        let error = child.printed("ready", Duration::from_secs(10)).await.unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }

    #[tokio::test]
    async fn a_process_ends_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Child::start("asked", sh("trap 'exit 0' TERM; echo ready; while :; do read x || :; done"), dir.path()).unwrap();
        child.printed("ready", Duration::from_secs(10)).await.unwrap();
        assert_eq!(child.exited(), None);
        child.terminate();
        assert_eq!(child.wait(Duration::from_secs(10)).and_then(|s| s.code()), Some(0));
    }

    #[tokio::test]
    async fn a_tree_ends_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Child::start_tree("tree", sh("sleep 600 & echo \"child $!\"; wait"), dir.path()).unwrap();
        let grandchild: u32 = child.printed("child ", Duration::from_secs(10)).await.unwrap().parse().unwrap();
        assert!(is_alive(grandchild));
        drop(child);
        let began = Stopwatch::start();
        while is_alive(grandchild) && began.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(POLL).await;
        }
        assert!(!is_alive(grandchild));
    }

    /// A killed process whose new parent has not buried it yet is dead too.
    fn is_alive(pid: u32) -> bool {
        let listed = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap().stdout;
        !listed.is_empty() && !listed.starts_with(b"Z")
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Child::start("x", Command::new("/no/such/program"), dir.path()).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
