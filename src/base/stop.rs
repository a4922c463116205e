//! The user's request to stop. A signal is sent to the whole process, so the request is one static,
//! which a loop at any depth can read without being passed anything.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::{Error, Result};

/// Whether the user asked to stop.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Asks every loop of this process to stop after its present batch, file or image. It cannot be
/// taken back.
pub fn ask() {
    ASKED.store(true, Ordering::SeqCst);
}

/// Whether [`ask`] was called.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Fails with [`Error::Interrupted`] once the user asked to stop. Loops that take longer than a
/// moment call it before each batch, file or image.
pub fn check() -> Result<()> {
    if asked() { Err(stopped()) } else { Ok(()) }
}

/// The error of a loop that was asked to stop and keeps nothing. A caller that keeps something says
/// so with [`Error::kept`].
pub fn stopped() -> Error {
    Error::Interrupted {
        kept: "nothing was written".into(),
        remedy: "run the same command again".into(),
    }
}
