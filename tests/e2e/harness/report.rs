//! edge: figures that a test measures and does not judge: printed, and kept for `tests/run` to show.

use super::program::scratch;

/// Prints the report and keeps it as `.tidemill/reports/NAME.txt`.
pub(crate) fn report(name: &str, text: &str) {
    eprintln!("{name}:\n{text}");
    let folder = scratch().join("reports");
    std::fs::create_dir_all(&folder).expect("the repository is writable");
    std::fs::write(folder.join(format!("{name}.txt")), format!("{}\n", text.trim_end())).expect("the repository is writable");
}
