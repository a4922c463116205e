//! Progress over files.

use std::sync::Mutex;

use crate::report::{PhaseBar, Progress};

/// A progress bar for passes over files, which report from many threads and learn their total on
/// the way.
pub struct FileBar {
    name: &'static str,
    state: Mutex<Option<(PhaseBar, usize)>>,
}

impl FileBar {
    pub fn new(name: &'static str) -> Self {
        FileBar { name, state: Default::default() }
    }

    pub fn set(&self, done: usize, total: usize) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        let (phase, shown) =
            state.get_or_insert_with(|| (Progress::phase(self.name, total as u64), 0));
        // Reports of several threads may arrive out of order.
        phase.add(done.saturating_sub(*shown) as u64);
        *shown = done.max(*shown);
    }

    pub fn finish(self) {
        if let Some((phase, _)) = self.state.into_inner().unwrap_or_else(|e| e.into_inner()) {
            phase.finish();
        }
    }
}
