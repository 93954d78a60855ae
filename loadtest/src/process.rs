//! edge: processes as /proc shows them: who descends from whom, CPU time, memory. Linux only; elsewhere there is nothing to see.

use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The unit of CPU times in /proc: `USER_HZ`, which is 100 on every architecture of Linux.
const TICKS_PER_SECOND: u32 = 100;

/// The value that resets a process's peak of resident memory (proc(5), `clear_refs`).
const RESET_PEAK: &str = "5";

/// CPU time by process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes(BTreeMap<u32, (String, Duration)>);

/// One process's share of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessCpu {
    pub name: String,
    pub seconds: f64,
}

/// What one line of `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    /// User and system time, of the process and of the children it has buried.
    cpu: Duration,
}

/// The processes and all their descendants, as of now.
pub fn tree(roots: &[u32]) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all().into_iter().filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
    descendants(roots, &parents)
}

/// The CPU time of each process so far. Who has ended is left out.
pub fn cpu_times(processes: &[u32]) -> CpuTimes {
    CpuTimes(processes.iter().filter_map(|&pid| stat(pid).map(|stat| (pid, (stat.name, stat.cpu)))).collect())
}

/// The highest resident memory of each process since its start or the last reset, summed, in KiB.
pub fn peak_kib(processes: &[u32]) -> u64 {
    processes.iter().filter_map(|pid| status_kib(&read(*pid, "status")?, "VmHWM:")).sum()
}

/// Begins a new peak for each process.
pub fn reset_peaks(processes: &[u32]) {
    for pid in processes {
        // A process that has just ended has no peak either.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), RESET_PEAK);
    }
}

impl CpuTimes {
    /// What each process has used since `earlier`, the busiest first. Who began later counts from its beginning.
    pub fn since(&self, earlier: &Self) -> Vec<ProcessCpu> {
        let before = |pid| earlier.0.get(pid).map_or(Duration::ZERO, |(_, cpu)| *cpu);
        let spent = self.0.iter().map(|(pid, (name, cpu))| (name.clone(), cpu.saturating_sub(before(pid)).as_secs_f64()));
        let mut spent: Vec<ProcessCpu> = spent.map(|(name, seconds)| ProcessCpu { name, seconds }).collect();
        spent.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        spent
    }
}

fn all() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn descendants(roots: &[u32], parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = roots.to_vec();
    let mut next = 0;
    while next < found.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == found[next]).map(|(pid, _)| *pid);
        let new: Vec<u32> = children.filter(|pid| !found.contains(pid)).collect();
        found.extend(new);
        next += 1;
    }
    found
}

fn read(pid: u32, file: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(file)).ok()
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&read(pid, "stat")?)
}

/// `PID (NAME) STATE PARENT … utime stime cutime cstime …`; the name may hold blanks and parentheses.
fn parse_stat(line: &str) -> Option<Stat> {
    let (name, fields) = (line.find('(')? + 1, line.rfind(')')?);
    let (name, fields) = (&line[name..fields], &line[fields + 1..]);
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks: u32 = fields.get(11..15)?.iter().map(|field| field.parse::<u32>().ok()).sum::<Option<u32>>()?;
    Some(Stat { name: name.to_owned(), parent: fields[1].parse().ok()?, cpu: Duration::from_secs(1) * ticks / TICKS_PER_SECOND })
}

fn status_kib(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 150 50 3 7 20 0 4 0 9 1 2";

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(parse_stat(STAT), Some(Stat { name: "a) b (c".into(), parent: 7, cpu: Duration::from_millis(2_100) }));
        assert_eq!(parse_stat("42 (cut"), None);
    }

    #[test]
    fn the_peak_is_in_kib() {
        assert_eq!(status_kib("VmPeak:\t 10 kB\nVmHWM:\t   2048 kB\n", "VmHWM:"), Some(2_048));
        assert_eq!(status_kib("VmPeak:\t 10 kB\n", "VmHWM:"), None, "a kernel thread has none");
    }

    #[test]
    fn a_tree_is_found_from_its_roots() {
        let parents = [(1, 0), (2, 1), (3, 2), (4, 9), (5, 4), (6, 1)];
        let mut found = descendants(&[2, 4], &parents);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4, 5]);
    }

    #[test]
    fn whoever_began_later_counts_from_its_beginning() {
        let times =
            |list: &[(u32, u64)]| CpuTimes(list.iter().map(|&(pid, s)| (pid, (format!("p{pid}"), Duration::from_secs(s)))).collect());
        let spent = times(&[(1, 5), (3, 4)]).since(&times(&[(1, 2), (2, 9)]));
        let spent: Vec<(&str, f64)> = spent.iter().map(|p| (p.name.as_str(), p.seconds)).collect();
        assert_eq!(spent, [("p3", 4.0), ("p1", 3.0)]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        assert!(tree(&[own]).contains(&own));
        assert_eq!(cpu_times(&[own]).0.len(), 1);
        assert!(peak_kib(&[own]) > 1_000);
    }
}
