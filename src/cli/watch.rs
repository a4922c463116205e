//! The handling of signals, and the progress of a training run.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::base::say::warn;
use crate::base::{fs, stop, tell};
use crate::eval::EpochRow;
use crate::report::{PhaseBar, Progress, table};
use crate::train::{Observer, Seen};

/// Signals closer in time than this count as one. A terminal that is closed sends SIGHUP twice, and
/// a wrapper passes on the Ctrl-C that its child has already had from the terminal.
const ONE: Duration = Duration::from_millis(100);

/// The least time between the lines of two epochs; and of a long run, the number of them in all.
const EPOCH_LINE: Duration = Duration::from_secs(3);
const EPOCH_LINES: u32 = 100;

/// Installs the handlers of signals. From here on the first Ctrl-C (or SIGTERM, SIGHUP) asks the
/// process to stop, and the second one ends it. Signals that the process was started to ignore, as
/// under `nohup` or as a shell's background job, are still ignored.
pub fn heed_signals() {
    // A write beyond `ulimit -f` is to fail, as on a full disk, instead of ending the process.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    // Outside of Linux no signal is known to be ignored.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let heeded =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(move |&signal| !ignores(&status, signal));
    // NOTE: the thread that receives the signals also installs the handlers. If it cannot be
    // started, a signal ends the process, and the last checkpoint can be resumed.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(|| {
        let Ok(mut signals) = Signals::new(heeded) else { return };
        let mut first: Option<Instant> = None;
        for _ in signals.forever() {
            match first {
                None => {
                    stop::ask();
                    first = Some(Instant::now());
                    // The message has a thread of its own, because a stderr that nobody reads must
                    // not delay the second signal.
                    let line = "\nstopping after this batch; once more to stop at once";
                    let _ = std::thread::Builder::new().spawn(move || tell(line));
                }
                Some(first) if first.elapsed() < ONE => {}
                Some(_) => {
                    fs::abandon();
                    // NOTE: `std::process::exit` would run the exit handlers of the CUDA libraries
                    // while the main thread is inside of them, which may never end.
                    signal_hook::low_level::exit(130);
                }
            }
        }
    });
}

/// Whether the process ignores a signal, according to the text of `/proc/self/status`.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The terminal's view of a training run: progress bars, notes, and the request to stop.
pub struct Watch<'a> {
    /// Number of epochs of the run.
    epochs: usize,
    begun: Instant,
    /// When the last line of an epoch was told.
    told: Option<Instant>,
    /// Records each finished epoch.
    on_epoch: &'a mut dyn FnMut(&EpochRow, &Seen),
    /// The progress bar of the present phase.
    phase: Option<PhaseBar>,
    /// The optimizer steps that a profiler records.
    profiled: Range<u64>,
    /// Number of steps between two looks at their losses.
    look_every: usize,
}

impl<'a> Watch<'a> {
    /// A watch of a run of `epochs` epochs with no phase yet. `profiled` are the optimizer steps
    /// that a profiler records, `look_every` is the number of steps between two looks at their
    /// losses, and `on_epoch` records each finished epoch.
    pub fn new(
        epochs: usize,
        profiled: Range<u64>,
        look_every: usize,
        on_epoch: &'a mut dyn FnMut(&EpochRow, &Seen),
    ) -> Self {
        let begun = Instant::now();
        Watch { epochs, begun, told: None, on_epoch, phase: None, profiled, look_every }
    }
}

impl Observer for Watch<'_> {
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
        stop::asked()
    }

    fn look_every(&self) -> usize {
        self.look_every
    }

    fn epoch(&mut self, row: &EpochRow, seen: &Seen) {
        // A run of many short epochs has no line for each.
        let least = EPOCH_LINE.max(self.begun.elapsed() / EPOCH_LINES);
        let due = self.told.is_none_or(|told| told.elapsed() >= least);
        if due || row.epoch == self.epochs {
            tell(table::epoch(row, self.epochs));
            self.told = Some(Instant::now());
        }
        (self.on_epoch)(row, seen);
    }

    fn note(&mut self, line: &str) {
        // An outlook may warn, which is said however quiet the user wants it.
        if line.starts_with("warning: ") { warn(line) } else { tell(line) }
    }

    fn profiled(&self, step: u64) -> bool {
        self.profiled.contains(&step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        // Bits 0 and 12 are set: HUP is signal 1, PIPE is 13.
        let status = "Name:\tpicie\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\tffffffffffffffff\n";
        assert_eq!(
            [SIGHUP, SIGINT, SIGTERM].map(|signal| ignores(status, signal)),
            [true, false, false]
        );
        assert!(!ignores("", SIGINT));
    }
}
