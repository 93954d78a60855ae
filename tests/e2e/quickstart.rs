//! Promise: one command serves, on whatever broker there is, and what its banner says is true.

use crate::harness::{Program, SOON, nats_server, tidemill, until};
use loadtest::child::Child;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A PATH on which no nats-server is found.
const NOTHING: &str = "/nonexistent";

/// `tidemill up` in a folder of its own, with no program in sight but those of the folder `path`.
fn up_in(folder: &Path, path: &str, args: &[&str]) -> Child {
    let mut command = tidemill();
    command.args(["up", "--listen", "127.0.0.1:0"]).args(args).current_dir(folder).env("PATH", path);
    Child::start("up", command, folder).unwrap_or_else(|error| panic!("{error}"))
}

async fn paste_the_curl_line(up: &mut Child) {
    up.printed("listening on ", SOON).await.unwrap_or_else(|error| panic!("{error}"));
    up.printed("curl ", SOON).await.unwrap_or_else(|error| panic!("{error}"));
    let output = up.output();
    let line = output.lines().map(str::trim).find(|line| line.starts_with("curl ")).expect("a line that begins with curl");
    let mut shell = Command::new("sh");
    shell.args(["-c", line]);
    let pasted = Program::start("curl", shell).end(SOON).await;
    assert_eq!(pasted.code, Some(0), "{pasted:?}");
    let answer: Value = serde_json::from_str(&pasted.out).unwrap_or_else(|_| panic!("`{line}` printed {}", pasted.out));
    let answered = answer["choices"].is_array() || answer["data"].is_array();
    assert!(answered, "`{line}` printed {}", pasted.out);
}

fn ends_well(up: &mut Child) {
    up.terminate();
    assert_eq!(up.wait(SOON).and_then(|status| status.code()), Some(0), "{}", up.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_any_nats_the_printed_curl_line_answers_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = up_in(folder.path(), NOTHING, &[]);
    paste_the_curl_line(&mut up).await;
    ends_well(&mut up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_developers_own_key_is_the_one_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = up_in(folder.path(), NOTHING, &["--dev-key", "sk-test"]);
    paste_the_curl_line(&mut up).await;
    assert!(up.output().contains("sk-test"), "the banner shows the key in use");
    assert!(!up.log().contains("sk-test"), "the log does not");
    ends_well(&mut up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_nats_server_in_the_folder_is_used_and_dies_with_its_parent() {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join(".tidemill/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(nats_server(), bin.join("nats-server")).unwrap();
    let mut up = up_in(folder.path(), "/usr/bin:/bin", &[]);
    paste_the_curl_line(&mut up).await;
    assert!(runs_from(folder.path(), "nats-server"), "{}", up.output());
    up.kill();
    until("the nats-server ends with the process that started it", SOON, async || !runs_from(folder.path(), "nats-server")).await;
}

/// Whether a process of this name runs whose arguments or folder name `folder`.
fn runs_from(folder: &Path, name: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.map(|entry| entry.path()).any(|process| {
        let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        let here = std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        command.contains(name) && (here || command.contains(&*folder.to_string_lossy()))
    })
}
