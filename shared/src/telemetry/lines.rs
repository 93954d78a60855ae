//! edge: log lines on their way to standard error. They are collected for a moment and written together by a thread of
//! their own, so that a busy process makes one system call for many lines and nobody waits for whoever reads them.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a line waits for others.
const COLLECT: Duration = Duration::from_millis(2);

/// After so many looks at nothing the writer sleeps until it is woken, which costs whoever logs a system call.
const LOOKS: u32 = 50;

/// Bytes that may wait for a slow reader: some 10,000 requests' lines. Past it lines are dropped, and how many is said.
const WAITING_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    is_writing: bool,
    has_thread: bool,
    is_asleep: bool,
    /// Somebody waits in [`Lines::flush`]: nothing is collected any longer.
    hurry: bool,
}

/// The process's log lines.
#[derive(Debug)]
pub(super) struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

impl Lines {
    pub(super) const fn new() -> Self {
        let state = State { waiting: Vec::new(), dropped: 0, is_writing: false, has_thread: false, is_asleep: false, hurry: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Starts the thread that writes to `sink`. Until then lines only wait.
    pub(super) fn write_to(&'static self, sink: impl Write + Send + 'static) -> io::Result<()> {
        std::thread::Builder::new().name("log".into()).spawn(move || self.run(sink))?;
        self.lock().has_thread = true;
        Ok(())
    }

    fn add(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > WAITING_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        if state.is_asleep {
            self.changed.notify_all();
        }
    }

    /// Waits until everything added before has been written.
    pub(super) fn flush(&self) {
        let mut state = self.lock();
        state.hurry = true;
        self.changed.notify_all();
        while state.has_thread && (state.is_writing || !state.waiting.is_empty()) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.hurry = false;
    }

    fn run(&self, mut sink: impl Write) {
        let mut round = Vec::new();
        loop {
            self.collect(&mut round);
            // Where the log cannot be written there is nowhere to say so.
            let _ = sink.write_all(&round).and_then(|()| sink.flush());
            round.clear();
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn collect(&self, into: &mut Vec<u8>) {
        let mut state = self.lock();
        let mut looks = 0;
        while !state.hurry || state.waiting.is_empty() {
            if looks == LOOKS {
                state = self.sleep(state);
                looks = 0;
            }
            state = self.changed.wait_timeout(state, COLLECT).unwrap_or_else(PoisonError::into_inner).0;
            if !state.waiting.is_empty() {
                break;
            }
            looks += 1;
        }
        std::mem::swap(into, &mut state.waiting);
        state.is_writing = true;
        if std::mem::take(&mut state.dropped) > 0 {
            into.extend_from_slice(b"{\"level\":\"WARN\",\"message\":\"log lines were dropped: whoever reads them is too slow\"}\n");
        }
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.is_asleep = true;
        let mut state = self.changed.wait_while(state, |state| state.waiting.is_empty()).unwrap_or_else(PoisonError::into_inner);
        state.is_asleep = false;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines() -> (&'static Lines, Sink) {
        (Box::leak(Box::new(Lines::new())), Sink::default())
    }

    #[test]
    fn what_was_added_is_written_in_order_once_flushed() {
        let (lines, sink) = lines();
        lines.write_to(sink.clone()).unwrap();
        (0..1_000).for_each(|n| lines.add(format!("{n}\n").as_bytes()));
        lines.flush();
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().map(|line| line.parse::<u32>().unwrap()).collect::<Vec<_>>(), (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_slow_reader_loses_lines_and_is_told() {
        let (lines, sink) = lines();
        let line = vec![b'x'; 1 << 20];
        (0..6).for_each(|_| lines.add(&line));
        lines.write_to(sink.clone()).unwrap();
        lines.flush();
        let written = sink.0.lock().unwrap().clone();
        assert!(written.starts_with(&line) && written.len() < 5 << 20);
        assert!(String::from_utf8_lossy(&written[4 << 20..]).contains("were dropped"));
    }
}
