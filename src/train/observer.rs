//! Who watches a run and may stop it.

use crate::base::{Error, Result, stop};

/// Who watches a run.
pub trait Observer {
    /// A phase of `images` images begins.
    fn begin(&mut self, phase: &str, images: usize);
    /// `images` more are done.
    fn advance(&mut self, images: usize);
    /// The phase is complete.
    fn end(&mut self);
    /// Whether to stop after the present batch.
    fn interrupted(&self) -> bool;
    /// Whether a profiler records optimizer step `step` (from 1).
    fn profiled(&self, step: u64) -> bool;
    /// Steps between two looks at their losses, 1 to [`MOST_UNSEEN`](crate::train::MOST_UNSEEN).
    /// Each look waits for the device.
    fn look_every(&self) -> usize {
        1
    }

    /// A line for whoever started the run.
    fn note(&mut self, line: &str);
}

/// Counts images, and stops the pass where the observer asks for it.
pub fn ticker(watch: &mut dyn Observer) -> impl FnMut(usize) -> Result<()> {
    move |images| {
        watch.advance(images);
        if watch.interrupted() { Err(stop::stopped()) } else { Ok(()) }
    }
}

/// None where the user asked to stop; any other error is passed on.
pub fn unless_stopped<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Interrupted { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}
