//! edge: a disk that is small enough to be filled: a file system in memory, for the store of one nats-server.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes written at once.
const PIECE: usize = 1 << 20;

/// Unmounted with its guard.
pub(super) struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// With room for so many GiB. `None` where nothing may be mounted.
    pub(super) fn mount(at: &Path, gib: u32) -> Option<Self> {
        std::fs::create_dir_all(at).expect("the folder is writable");
        let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={gib}g"), "tmpfs"]).arg(at));
        mounted.then(|| Self { at: at.to_owned() })
    }

    /// Until not a byte fits.
    pub(super) fn fill(&self) {
        let mut file = File::create(self.filler()).expect("a new file fits");
        while file.write_all(&[0; PIECE]).is_ok() {}
    }

    pub(super) fn empty(&self) {
        let _ = std::fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

/// Also what a run that was killed has left.
pub(super) fn unmount(at: &Path) -> bool {
    run(Command::new("umount").arg("-l").arg(at))
}

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
