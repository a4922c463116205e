//! Progress bars for passes over files.

use std::sync::Mutex;

use crate::report::{PhaseBar, Progress};

/// A progress bar for a pass over files, which reports from many threads and knows its total only
/// once it has begun.
pub struct FileBar {
    name: &'static str,
    /// The bar, once a total is known, and the number of files that it shows.
    state: Mutex<Option<(PhaseBar, usize)>>,
}

impl FileBar {
    /// A bar called `name`, which is shown from the first report on.
    pub fn new(name: &'static str) -> Self {
        FileBar { name, state: Default::default() }
    }

    /// Shows that `done` of `total` files are done. May be called from any thread.
    pub fn set(&self, done: usize, total: usize) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        let (phase, shown) =
            state.get_or_insert_with(|| (Progress::phase(self.name, total as u64), 0));
        // Reports of several threads may arrive out of order.
        phase.add(done.saturating_sub(*shown) as u64);
        *shown = done.max(*shown);
    }

    /// Completes the bar.
    pub fn finish(self) {
        if let Some((phase, _)) = self.state.into_inner().unwrap_or_else(|e| e.into_inner()) {
            phase.finish();
        }
    }
}
