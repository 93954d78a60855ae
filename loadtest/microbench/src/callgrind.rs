//! edge: counts a case's instructions: runs this program again, with that one case, under valgrind's callgrind.
//!
//! A process for each case, so that no case's count depends on which others there are.

use crate::cases::Case;
use crate::meter::COUNTED_CALLS;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

/// The function that is collected in, by the name that callgrind gives it.
const COLLECT_IN: &str = "--toggle-collect=microbench::meter::counted*";

/// What would let chance or the machine into a count: the allocator's giving memory back by the clock, and the C library's
/// choice of `memcpy` and its kin by the processor, which moves counts by up to 4 %.
const STEADY: [(&str, &str); 2] = [
    ("MIMALLOC_PURGE_DELAY", "-1"),
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX_Fast_Unaligned_Load,-BMI2,-ERMS,-FSRM,-SSSE3,-SSE4_1,-SSE4_2"),
];

#[derive(Debug, thiserror::Error)]
pub(crate) enum Uncounted {
    #[error("valgrind cannot be run ({0}): run tests/setup/valgrind.sh, or install valgrind")]
    Valgrind(#[from] std::io::Error),
    #[error("valgrind gave no count for `{case}`:\n{said}")]
    NoCount { case: String, said: String },
}

/// The instructions of one call of each case, by its name.
///
/// # Errors
/// Of the first case that could not be counted.
pub(crate) fn count_all(cases: &[Case]) -> Result<BTreeMap<String, u64>, Uncounted> {
    let (waiting, counts) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    let next = || waiting.lock().expect("nothing panics under this lock").next();
    let work = || {
        while let Some(case) = next() {
            let count = count(&case.name).map(|count| (case.name.clone(), count));
            counts.lock().expect("nothing panics under this lock").push(count);
        }
    };
    thread::scope(|scope| (0..thread::available_parallelism().map_or(1, NonZero::get)).for_each(|_| drop(scope.spawn(work))));
    counts.into_inner().expect("nothing panics under this lock").into_iter().collect()
}

fn count(case: &str) -> Result<u64, Uncounted> {
    let valgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null", COLLECT_IN];
    let ended = Command::new("valgrind").args(valgrind).arg(std::env::current_exe()?).args(["count", case]).envs(STEADY).output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    match collected(&said).filter(|count| *count > 0 && ended.status.success()) {
        Some(count) => Ok(count / COUNTED_CALLS),
        None => Err(Uncounted::NoCount { case: case.to_owned(), said }),
    }
}

/// The number in callgrind's last words: `==123== Collected : 456`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::collected;

    #[test]
    fn the_count_is_found_among_what_callgrind_says() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 12345\n==7== \n"), Some(12_345));
        assert_eq!(collected("valgrind: fatal error"), None);
    }
}
