//! Signals, and the progress of a training run.

use std::ops::Range;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::base::{fs, stop, tell};
use crate::report::{PhaseBar, Progress};
use crate::train::Observer;

/// Signals closer than this are one: a terminal that is closed sends SIGHUP twice, a wrapper passes
/// on the Ctrl-C that its child has had from the terminal already.
const ONE: Duration = Duration::from_millis(100);

/// From here on the first Ctrl-C (or SIGTERM, SIGHUP) asks to stop, the second one ends the
/// process. What the process was started to ignore, as `nohup` and a shell's background jobs are,
/// it goes on ignoring.
pub fn heed_signals() {
    // Elsewhere than on Linux nothing is known to be ignored.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let heeded =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(move |&signal| !ignores(&status, signal));
    // NOTE: handlers are installed by the thread that hears of the signals. Where it cannot be
    // started a signal ends the process, as without handlers, and the last checkpoint is what is
    // resumed.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(|| {
        let Ok(mut signals) = Signals::new(heeded) else { return };
        let mut first: Option<Instant> = None;
        for _ in signals.forever() {
            match first {
                None => {
                    stop::ask();
                    first = Some(Instant::now());
                    // On a thread of its own: a stderr that nobody reads must not keep the second
                    // signal waiting.
                    let line = "\nstopping after this batch; once more to stop at once";
                    let _ = std::thread::Builder::new().spawn(move || tell(line));
                }
                Some(first) if first.elapsed() < ONE => {}
                Some(_) => {
                    fs::abandon();
                    // NOTE: not `std::process::exit`, which runs the exit handlers of the CUDA
                    // libraries while the main thread is inside of them: that may never end.
                    signal_hook::low_level::exit(130);
                }
            }
        }
    });
}

/// Whether the process ignores a signal, by its `/proc/self/status`.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

pub struct Watch {
    phase: Option<PhaseBar>,
    profiled: Range<u64>,
    look_every: usize,
}

impl Watch {
    /// `profiled`: the optimizer steps that a profiler is to look at; `look_every`: steps between
    /// two looks at their losses.
    pub fn new(profiled: Range<u64>, look_every: usize) -> Self {
        Watch { phase: None, profiled, look_every }
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
        stop::asked()
    }

    fn look_every(&self) -> usize {
        self.look_every
    }

    fn note(&mut self, line: &str) {
        tell(line);
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
        // Bits 0 and 12: HUP is signal 1, PIPE 13.
        let status = "Name:\tpicie\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\tffffffffffffffff\n";
        assert_eq!(
            [SIGHUP, SIGINT, SIGTERM].map(|signal| ignores(status, signal)),
            [true, false, false]
        );
        assert!(!ignores("", SIGINT));
    }
}
