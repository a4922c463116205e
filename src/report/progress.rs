//! One bar for each phase of an epoch, and one line once it is done.

use std::fmt::Write;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::base::{Result, stop, tell};

/// Starts phases, which are shown on stderr: as bars where it is a terminal, else only as a line
/// each when they are finished.
pub struct Progress;

impl Progress {
    /// Starts the clock of a phase of `total` images.
    pub fn phase(name: &str, total: u64) -> PhaseBar {
        Progress::count(name, total, "images")
    }

    /// Starts the clock of a phase of `total` things, which `unit` names in the plural.
    pub fn count(name: &str, total: u64, unit: &'static str) -> PhaseBar {
        // NOTE: indicatif hides the bar by itself where stderr is no terminal.
        PhaseBar::new(name, total, unit, ProgressDrawTarget::stderr())
    }
}

/// A phase at work. Dropped before its end, as an interrupt does, it takes its bar away and prints
/// nothing.
pub struct PhaseBar {
    name: String,
    unit: &'static str,
    start: Instant,
    bar: ProgressBar,
}

impl PhaseBar {
    fn new(name: &str, total: u64, unit: &'static str, target: ProgressDrawTarget) -> Self {
        let rate = move |state: &ProgressState, out: &mut dyn Write| {
            // A line cut short is no reason to stop a training run.
            let _ = out.write_str(&rate(state.pos(), state.elapsed().as_secs_f64(), unit));
        };
        let shown =
            format!("{{prefix:18}} {{bar:30}} {{pos}}/{{len}} {unit}, {{rate}}, {{eta}} left");
        let style = ProgressStyle::with_template(&shown)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", rate)
            .progress_chars("━╸─");
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_style(style)
            .with_prefix(name.to_string());
        bar.tick();
        PhaseBar { name: name.to_string(), unit, start: Instant::now(), bar }
    }

    /// Moves the bar by the `n` things that were done since.
    pub fn add(&self, n: u64) {
        self.bar.inc(n);
    }

    /// Moves the bar as [`Phase::add`] does. Passes over images call this as their tick, since it
    /// is an error where the user asked to stop.
    pub fn tick(&self, n: usize) -> Result<()> {
        self.add(n as u64);
        stop::check()
    }

    /// Moves the bar to `n`, the number of things that are done by now.
    pub fn reach(&self, n: u64) {
        self.bar.set_position(n);
    }

    /// Prints a line of the phase where it has no bar.
    pub fn announce(&self, what: &str) {
        if self.bar.is_hidden() {
            tell(format_args!("{:18} {what}", self.name));
        }
    }

    /// Ends the phase, prints its line to stderr and returns its seconds.
    pub fn finish(self) -> f64 {
        let (done, seconds, unit) =
            (self.bar.position(), self.start.elapsed().as_secs_f64(), self.unit);
        self.bar.finish_and_clear();
        tell(format_args!(
            "{:18} {done} {unit} in {seconds:.1} s, {}",
            self.name,
            rate(done, seconds, unit)
        ));
        seconds
    }
}

/// The rate in things per second, with a digit behind the point where it matters.
fn rate(done: u64, seconds: f64, unit: &str) -> String {
    let rate = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
    if rate < 100.0 { format!("{rate:.1} {unit}/s") } else { format!("{rate:.0} {unit}/s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// A terminal that remembers what was written on it.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> std::io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_shows_the_phase_and_goes_when_it_is_done() {
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 255);
        let phase = PhaseBar::new("1/5 k-means", 40, "images", target);
        std::thread::sleep(Duration::from_millis(50));
        phase.add(30);
        phase.bar.force_draw();
        let text = screen.0.lock().unwrap().clone();
        for part in ["1/5 k-means", "━━━", "30/40 images", " images/s, ", " left"] {
            assert!(text.contains(part), "{part} is not in {text:?}");
        }
        assert!(phase.finish() >= 0.05);
        assert!(!screen.0.lock().unwrap().contains("k-means"));
    }

    #[test]
    fn rates_have_the_digits_that_matter() {
        let texts = [rate(25, 2.0, "images"), rate(1000, 0.5, "images"), rate(0, 0.0, "engines")];
        assert_eq!(texts, ["12.5 images/s", "2000 images/s", "0.0 engines/s"]);
    }
}
