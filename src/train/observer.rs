//! The interface of whoever watches a run and may stop it.

use crate::base::{Error, Result, stop};
use crate::eval::EpochRow;
use crate::train::Seen;

/// Shows the progress of a run, and may stop it.
pub trait Observer {
    /// Called when a phase of `images` images begins.
    fn begin(&mut self, phase: &str, images: usize);
    /// Called when `images` more images are done.
    fn advance(&mut self, images: usize);
    /// Called when the phase is complete.
    fn end(&mut self);
    /// Whether the run should stop after the present batch.
    fn interrupted(&self) -> bool;
    /// Whether a profiler should look at the optimizer step number `step` (from 1).
    fn profiled(&self, step: u64) -> bool;
    /// Number of steps between two looks at their losses, 1 to
    /// [`MOST_UNSEEN`](crate::train::MOST_UNSEEN). Each look waits for the device.
    fn look_every(&self) -> usize {
        1
    }

    /// Called when an epoch is finished and saved, with its row and what the network now makes of
    /// the validation images.
    fn epoch(&mut self, _row: &EpochRow, _seen: &Seen) {}

    /// Shows a line to whoever started the run.
    fn note(&mut self, line: &str);
}

/// A function that reports a batch's images to the observer, and fails if the observer wants the
/// run to stop.
pub fn ticker(watch: &mut dyn Observer) -> impl FnMut(usize) -> Result<()> {
    move |images| {
        watch.advance(images);
        if watch.interrupted() { Err(stop::stopped()) } else { Ok(()) }
    }
}

/// Turns a request to stop into `None`. Other errors are passed on.
pub fn unless_stopped<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Interrupted { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}
