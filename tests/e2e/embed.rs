//! Promise: `tidemill embed` gives each row of a file its own vector, in the file's order, goes on after `kill -9` without
//! embedding a row twice, and reports the rows that have none.

mod peer;
mod road;

use crate::harness::{Program, SOON, tidemill, until};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use peer::{Peer, REFUSE, vector};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The code that says that some rows have no vector.
const PARTIAL: i32 = 3;

struct Work {
    peer: Peer,
    folder: TempDir,
}

impl Work {
    async fn new() -> Self {
        Self { peer: Peer::start().await, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, input: &str, output: &str, more: &[&str]) -> Command {
        let mut command = tidemill();
        command.arg("embed").arg(self.path(input)).arg("-o").arg(self.path(output));
        command.args(["--model", "m", "--url", self.peer.url()]).args(more);
        command
    }

    /// Runs it to its end; the exit code, and what it said.
    async fn embed(&self, input: &str, output: &str, more: &[&str]) -> (Option<i32>, String) {
        let ended = Program::start("embed", self.command(input, output, more)).end(SOON).await;
        (ended.code, ended.err)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the folder is writable");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn text(row: usize) -> String {
    format!("text {row} says \"{}\"", row * row)
}

/// The vector of a text with the digits that tell 32-bit numbers apart.
fn written(text: &str) -> Value {
    serde_json::from_str(&serde_json::to_string(&vector(text)).expect("numbers are JSON")).expect("it is JSON")
}

/// Rows of a text and a number.
fn rows(count: usize) -> String {
    (0..count).map(|row| json!({ "text": text(row), "number": row }).to_string() + "\n").collect()
}

fn parquet(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("it is there")).expect("it is Parquet");
    let mut batches = reader.with_batch_size(1 << 20).build().expect("it is Parquet");
    batches.next().expect("it has rows").expect("they can be read")
}

fn vectors(batch: &RecordBatch, column: &str) -> Vec<Option<Vec<f32>>> {
    let lists = batch.column_by_name(column).expect("the column is there").as_fixed_size_list();
    let one = |row: usize| lists.is_valid(row).then(|| lists.value(row).as_primitive::<Float32Type>().values().to_vec());
    (0..lists.len()).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jsonl_becomes_parquet_with_its_columns_and_parquet_becomes_both_again() {
    let work = Work::new().await;
    work.write("in.jsonl", &rows(2_500));
    let (code, said) = work.embed("in.jsonl", "out.parquet", &["--batch-rows", "700"]).await;
    assert_eq!(code, Some(0), "{said}");
    let batch = parquet(&work.path("out.parquet"));
    let expected: Vec<_> = (0..2_500).map(|row| Some(vector(&text(row)))).collect();
    assert_eq!(vectors(&batch, "embedding"), expected);
    let numbers = batch.column_by_name("number").expect("columns are kept").as_primitive::<Int64Type>();
    assert!(numbers.values().iter().copied().eq(0..2_500));
    assert_eq!((work.peer.batches(), work.peer.files()), (4, 0), "nothing stays at the server");
    assert!(!work.path("out.parquet.progress").exists());

    let (code, said) = work.embed("out.parquet", "again.parquet", &["--vector-column", "second"]).await;
    assert_eq!(code, Some(0), "{said}");
    let again = parquet(&work.path("again.parquet"));
    assert_eq!((vectors(&again, "embedding"), vectors(&again, "second")), (expected.clone(), expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_are_null_vectors_and_are_told_with_their_numbers() {
    let work = Work::new().await;
    let refused = format!("{REFUSE} this");
    work.write("in.csv", &format!("id,body\n1,one\n2,\n3,{refused}\n4,\"four, and\nmore\"\n5\n"));
    let (code, said) = work.embed("in.csv", "out.jsonl", &["--column", "body"]).await;
    assert_eq!(code, Some(PARTIAL), "{said}");
    let expected = [
        json!({ "id": "1", "body": "one", "embedding": written("one") }),
        json!({ "id": "2", "body": "", "embedding": null }),
        json!({ "id": "3", "body": refused, "embedding": null }),
        json!({ "id": "4", "body": "four, and\nmore", "embedding": written("four, and\nmore") }),
        json!({ "id": "5", "embedding": null }),
    ];
    assert_eq!(lines(&work.read("out.jsonl")), expected);
    let told: Vec<_> =
        lines(&work.read("out.jsonl.errors.jsonl")).iter().map(|line| (line["row"].as_u64(), line["code"].to_string())).collect();
    let codes = [(1, "empty"), (2, "refused"), (4, "null")].map(|(row, code)| (Some(row), format!("\"{code}\"")));
    assert_eq!(told, codes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_goes_on_and_sends_no_row_twice() {
    let work = Work::new().await;
    work.write("in.jsonl", &rows(1_000));
    let more = ["--batch-rows", "100", "--only-vectors"];
    // The first two batches end, the next stay open; of the sixth the run never hears that it was made.
    work.peer.hold_from(Some(2));
    work.peer.mute_at(5);
    let first = Program::start("embed", work.command("in.jsonl", "out.parquet", &more));
    until("the sixth batch is made", SOON, async || work.peer.batches() == 6).await;
    first.kill();
    assert!(!work.path("out.parquet").exists(), "an output that is there is whole");

    work.peer.hold_from(None);
    let (code, said) = work.embed("in.jsonl", "out.parquet", &more).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(work.peer.rows_sent(), (0..1_000).collect::<Vec<u64>>());
    let batch = parquet(&work.path("out.parquet"));
    assert_eq!(batch.num_columns(), 1);
    assert_eq!(vectors(&batch, "embedding"), (0..1_000).map(|row| Some(vector(&text(row)))).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_before_anything_is_sent() {
    let work = Work::new().await;
    work.write("in.jsonl", &rows(10));
    work.write("in.csv", "text,embedding\na,b\n");
    work.write("there.npy", "");
    let cases = [
        ("none.jsonl", "out.npy", vec![], "none.jsonl"),
        ("in.jsonl", "there.npy", vec![], "there already"),
        ("in.jsonl", "out.txt", vec![], ".parquet"),
        ("in.jsonl", "out.csv", vec![], ".parquet"),
        ("in.csv", "out.parquet", vec!["--column", "body"], "text, embedding"),
        ("in.csv", "out.parquet", vec![], "--vector-column"),
    ];
    for (input, output, more, words) in cases {
        let (code, said) = work.embed(input, output, &more).await;
        assert_eq!(code, Some(2), "{input} {output}: {said}");
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(work.peer.files(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_input_does_not_go_on_with_what_was_begun() {
    let work = Work::new().await;
    work.write("in.jsonl", &rows(10));
    work.peer.hold_from(Some(0));
    let first = Program::start("embed", work.command("in.jsonl", "out.npy", &[]));
    until("a batch is made", SOON, async || work.peer.batches() == 1).await;
    let (code, said) = work.embed("in.jsonl", "out.npy", &[]).await;
    assert_eq!(code, Some(1), "two runs at once: {said}");
    first.kill();
    work.write("in.jsonl", &rows(11));
    let (code, said) = work.embed("in.jsonl", "out.npy", &[]).await;
    assert_eq!((code, said.contains("out.npy.progress")), (Some(2), true), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_submitted_watched_and_fetched_by_hand() {
    let work = Work::new().await;
    let line = |id: usize, input: &str| json!({ "custom_id": id.to_string(), "method": "POST", "url": "/v1/embeddings", "body": { "input": input } });
    work.write("lines.jsonl", &format!("{}\n{}\n", line(0, "a"), line(1, REFUSE)));
    let batch = async |args: &[&str]| {
        let mut command = tidemill();
        command.arg("batch").args(args).args(["--url", work.peer.url()]);
        Program::start("batch", command).end(SOON).await
    };
    let file = work.path("lines.jsonl").to_string_lossy().into_owned();
    let submitted = batch(&["submit", &file]).await;
    assert_eq!((submitted.code, submitted.out.trim()), (Some(0), "batch_0"), "{}", submitted.err);
    let waited = batch(&["wait", "batch_0"]).await;
    assert_eq!(waited.code, Some(PARTIAL), "{}", waited.err);
    let status = batch(&["status", "batch_0", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&status.out).expect("it is JSON")["status"], "completed");
    let output = work.path("answers.jsonl").to_string_lossy().into_owned();
    assert_eq!(batch(&["fetch", "batch_0", "-o", &output]).await.code, Some(0));
    assert_eq!(lines(&work.read("answers.jsonl"))[0]["custom_id"], "0");
    assert_eq!(lines(&work.read("answers.jsonl.errors.jsonl"))[0]["custom_id"], "1");

    work.peer.hold_from(Some(1));
    batch(&["submit", &file, "--endpoint", "/v1/embeddings"]).await;
    assert_eq!(batch(&["cancel", "batch_1"]).await.code, Some(0));
    assert_eq!(batch(&["wait", "batch_1"]).await.code, Some(1));
    assert_eq!(batch(&["status", "batch_9"]).await.code, Some(1));
}
