//! edge: the process's own words: the banner on standard output, refusals on standard error.

use std::io::Write as _;
use std::process::ExitCode;

/// Prints a line to standard output. A reader that went away is no reason to stop serving.
pub(crate) fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Says something beside what was asked for, on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}"); // Nobody reads: it was only a note.
}

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// What was asked for cannot be: mend the configuration or the arguments.
    #[error("{0}")]
    Refused(String),
    /// It was fine to ask, and it did not work out.
    #[error("{0}")]
    Broken(String),
    /// It worked out, but not for all that it was for.
    #[error("{0}")]
    Partial(String),
}

impl Failed {
    pub(crate) fn refused(why: impl std::fmt::Display) -> Self {
        Self::Refused(why.to_string())
    }

    pub(crate) fn broken(why: impl std::fmt::Display) -> Self {
        Self::Broken(why.to_string())
    }

    pub(crate) fn partial(why: impl std::fmt::Display) -> Self {
        Self::Partial(why.to_string())
    }

    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Refused(why) => refuse(why),
            Self::Broken(why) => {
                complain(why);
                ExitCode::FAILURE
            }
            Self::Partial(why) => {
                complain(why);
                ExitCode::from(3)
            }
        }
    }
}

/// Says why the command cannot run at all.
pub(crate) fn refuse(why: &str) -> ExitCode {
    complain(why);
    ExitCode::from(2)
}

fn complain(why: &str) {
    let _ = writeln!(std::io::stderr(), "tidemill: {why}"); // Nobody reads: the exit code says it too.
}
