//! Progress bars and Ctrl-C.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::report::{Phase, Progress};
use crate::train::Observer;

pub struct Watch {
    phase: Option<Phase>,
    stop: Arc<AtomicBool>,
    profiled: Range<u64>,
}

impl Watch {
    /// From here on the first Ctrl-C (or SIGTERM) asks to stop, the second one ends the process.
    /// `profiled`: the optimizer steps that a profiler is to record.
    pub fn new(profiled: Range<u64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        // Without a handler Ctrl-C ends the process, and the last checkpoint is what is resumed.
        let _ = ctrlc::set_handler(move || {
            if asked.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            eprintln!("\nstopping after this batch; once more to stop at once");
        });
        Watch { phase: None, stop, profiled }
    }
}

impl Observer for Watch {
    fn begin(&mut self, phase: &str, images: usize) {
        self.phase = Some(Progress::phase(phase, images as u64));
    }

    fn advance(&mut self, images: usize) {
        if let Some(phase) = &self.phase {
            phase.add(images as u64);
        }
    }

    fn end(&mut self) {
        if let Some(phase) = self.phase.take() {
            phase.finish();
        }
    }

    fn interrupted(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn profiled(&self, step: u64) -> bool {
        self.profiled.contains(&step)
    }
}
