//! The user's request to stop. Signals are sent to the process as a whole, so the request is one
//! static: a loop at any depth looks at it, and nothing has to be passed down to it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::{Error, Result};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Asks every loop of this process to stop after its present batch, file or image. It cannot be
/// taken back.
pub fn ask() {
    ASKED.store(true, Ordering::SeqCst);
}

pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// An error once the user asked to stop. Loops that take longer than a moment call it before each
/// batch, file or image.
pub fn check() -> Result<()> {
    if asked() { Err(stopped()) } else { Ok(()) }
}

/// The error of a loop that stops where nothing is to be kept. Who keeps something says so with
/// [`Error::kept`].
pub fn stopped() -> Error {
    Error::Interrupted {
        kept: "nothing was written".into(),
        remedy: "run the same command again".into(),
    }
}
