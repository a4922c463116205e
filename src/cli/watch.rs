//! Progress bars and Ctrl-C.

use std::ops::Range;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::report::{Phase, Progress};
use crate::train::Observer;

/// Whether a signal asked this process to stop. One flag: a process may train several times, as a sweep does.
static STOP: AtomicBool = AtomicBool::new(false);

pub struct Watch {
    phase: Option<Phase>,
    profiled: Range<u64>,
}

impl Watch {
    /// From here on the first Ctrl-C (or SIGTERM, SIGHUP) asks to stop, the second one ends the process.
    /// `profiled`: the optimizer steps that a profiler is to record.
    pub fn new(profiled: Range<u64>) -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // Without a handler Ctrl-C ends the process, and the last checkpoint is what is resumed.
            let _ = ctrlc::set_handler(|| {
                if STOP.swap(true, Ordering::SeqCst) {
                    std::process::exit(130);
                }
                eprintln!("\nstopping after this batch; once more to stop at once");
            });
        });
        Watch { phase: None, profiled }
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
        STOP.load(Ordering::SeqCst)
    }

    fn note(&mut self, line: &str) {
        eprintln!("{line}");
    }

    fn profiled(&self, step: u64) -> bool {
        self.profiled.contains(&step)
    }
}
