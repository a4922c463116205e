//! Every way in which a call can fail. A variant carries fields; its text is one line that names
//! the thing and the remedy.

use std::path::{Path, PathBuf};

/// The result of a call that can fail as [`Error`] lists.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The remedy where a disk is full.
const FREE: &str = "free some space, then run the same command again";

/// A failure: what went wrong, and what the user can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder that cannot be used as it is.
    #[error("{}: {what}; {remedy}", path.display())]
    File { path: PathBuf, what: String, remedy: String },
    /// A request that contradicts itself or the data.
    #[error("{what}; {remedy}")]
    Input { what: String, remedy: String },
    /// A buffer whose number of elements does not fit the contract of the op it was passed to.
    #[error("{op}: {what} has {got} elements, the contract wants {want}")]
    Shape { op: &'static str, what: &'static str, got: usize, want: usize },
    /// A plan that does not fit into memory. Sizes are in MiB; `fixed` is what does not depend on
    /// the batch. `share` is the fraction of the batch that would fit, if any would.
    #[error("the plan wants {wanted} MiB of {kind}, {free} MiB are free; {}", lower(*fixed, *share))]
    Memory { kind: &'static str, wanted: usize, free: usize, fixed: usize, share: Option<f64> },
    /// A failure of the GPU, its driver or its libraries, in the call `op`.
    #[error("{op}: {what}; {remedy}")]
    Device { op: String, what: String, remedy: String },
    /// A loss, an objective or a tensor, named by `what`, that became NaN or infinite. `step`
    /// counts from the start of the run and is the one after which it was first seen; `place` says
    /// more about where.
    #[error("{what} at step {step} of the run, in epoch {epoch}{place}; {}", restart(checkpoint.as_deref()))]
    NotFinite { what: String, place: String, epoch: usize, step: u64, checkpoint: Option<PathBuf> },
    /// An interruption by Ctrl-C, SIGTERM or SIGHUP. `kept` says what remains of the work so far,
    /// `remedy` how to go on.
    #[error("stopped: {kept}; {remedy}")]
    Interrupted { kept: String, remedy: String },
}

impl Error {
    /// An [`Error::File`] at `path`.
    pub fn file(path: impl AsRef<Path>, what: impl ToString, remedy: impl ToString) -> Self {
        Error::File {
            path: path.as_ref().to_path_buf(),
            what: what.to_string(),
            remedy: remedy.to_string(),
        }
    }

    /// An [`Error::Input`].
    pub fn input(what: impl ToString, remedy: impl ToString) -> Self {
        Error::Input { what: what.to_string(), remedy: remedy.to_string() }
    }

    /// If this error is an interruption, sets its texts: what was kept and how to go on. Other
    /// errors stay as they are.
    pub fn kept(self, what: impl ToString, how: impl ToString) -> Self {
        match self {
            Error::Interrupted { .. } => {
                Error::Interrupted { kept: what.to_string(), remedy: how.to_string() }
            }
            other => other,
        }
    }

    /// The same failure of the file `path`, by which the user knows it.
    pub fn at(self, path: &Path) -> Self {
        match self {
            Error::File { what, remedy, .. } => Error::file(path, what, remedy),
            other => other,
        }
    }

    /// Whether a disk was full, so that nothing more can be written to it.
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Error::File { remedy, .. } if remedy == FREE)
    }

    /// An [`Error::File`] for an `std::io::Error` at `path`, with the remedy that its kind
    /// suggests. An error of this crate that went through `std::io` comes out as it was.
    pub fn io(path: impl AsRef<Path>, e: std::io::Error) -> Self {
        use std::io::ErrorKind::*;
        let e = match e.downcast::<Error>() {
            Ok(own) => return own,
            Err(e) => e,
        };
        let remedy = match e.kind() {
            NotFound => "check the path",
            PermissionDenied => "check the permissions",
            StorageFull | QuotaExceeded => FREE,
            FileTooLarge => {
                "lift the limit on the size of files (ulimit -f), then run the same command again"
            }
            IsADirectory => "name a file, not a folder",
            NotADirectory => "name a folder, not a file",
            AlreadyExists => "choose another path",
            InvalidFilename => "use a shorter name",
            UnexpectedEof | InvalidData => "the file is damaged: copy or download it again",
            _ => "check the disk and try again",
        };
        let text = e.to_string();
        Error::file(path, text.split(" (os error").next().unwrap_or(&text).to_lowercase(), remedy)
    }
}

/// The remedy for a plan that does not fit into memory.
fn lower(fixed: usize, share: Option<f64>) -> String {
    match share {
        Some(share) => format!(
            "{:.0} % of the batch would: lower --batch, --batch-cluster or --size",
            100.0 * share
        ),
        None => format!(
            "{fixed} MiB of them do not depend on the batch: lower --size, --init-batches or --limit"
        ),
    }
}

/// The remedy for a loss that is not finite, given the last checkpoint.
fn restart(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        None => "start again with a lower --lr".into(),
        Some(path) => {
            let path = path.display();
            format!(
                "the last checkpoint is {path}: start a new --run from it, with --weights {path} and a lower --lr"
            )
        }
    }
}
