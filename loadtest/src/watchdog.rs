//! edge: a shell that ends a whole group of processes when its standard input closes: by our drop, or by the kernel when
//! this process is killed outright.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Guards one group of processes. Dropping it ends them all at once.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Guards the group of this id. It stands in a group of its own, so that an interrupt from the keyboard does not end it first.
    pub(crate) fn over(group: u32) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read _; kill -s KILL -- -\"$0\"", &group.to_string()]);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().map(Self)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
