//! The progress of a phase, such as a pass over images: a bar on a terminal, else a line every few
//! seconds; and a line when it is done.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::{Result, say, stop, tell};

/// The time between two drawings of a bar.
const FRAME: Duration = Duration::from_millis(100);
/// The least time between two lines, where there is no bar.
const LINE: Duration = Duration::from_secs(5);
/// Where a phase took less, it has a line of its own only the first time.
const SHORT: Duration = Duration::from_secs(3);

/// The names of the phases that had their line.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// When the first and the last line of this process were told.
static LINES: Mutex<Option<[Instant; 2]>> = Mutex::new(None);

/// Tells a line of progress where there is no bar. Unless it `must` be told, it is left out too
/// soon after the one before. The longer the process runs, the rarer they are: some 80 in the first
/// hour, and some 50 in the rest of the first day.
fn log(must: bool, line: impl Display) {
    let mut lines = LINES.lock().unwrap_or_else(|e| e.into_inner());
    let [first, last] = *lines.get_or_insert([Instant::now(); 2]);
    if must || last.elapsed() >= LINE.max(first.elapsed() / 16) {
        tell(line);
        *lines = Some([first, Instant::now()]);
    }
}

/// Starts phases.
pub struct Progress;

impl Progress {
    /// Starts the clock of a phase of `total` images.
    pub fn phase(name: &str, total: u64) -> PhaseBar {
        Progress::count(name, total, "images")
    }

    /// Starts the clock of a phase of `total` things, which `unit` names in the plural.
    pub fn count(name: &str, total: u64, unit: &'static str) -> PhaseBar {
        let phase = PhaseBar {
            name: name.to_string(),
            unit,
            total,
            start: Instant::now(),
            bar: say::bars(),
            done: Cell::new(0),
            next: Cell::new(if say::bars() { Duration::ZERO } else { LINE }),
        };
        phase.show();
        phase
    }
}

/// A phase at work. Dropped before its end, as an interrupt does, it takes its bar away and prints
/// nothing.
pub struct PhaseBar {
    name: String,
    unit: &'static str,
    total: u64,
    start: Instant,
    /// Whether it has a bar, and not lines.
    bar: bool,
    /// The number of things that are done.
    done: Cell<u64>,
    /// The time since the start at which it is shown again.
    next: Cell<Duration>,
}

impl PhaseBar {
    /// Moves on by the `n` things that were done since.
    pub fn add(&self, n: u64) {
        self.reach(self.done.get() + n);
    }

    /// Moves on as [`PhaseBar::add`] does. Passes over images call this as their tick, since it is
    /// an error where the user asked to stop.
    pub fn tick(&self, n: usize) -> Result<()> {
        self.add(n as u64);
        stop::check()
    }

    /// Moves to `n`, the number of things that are done by now.
    pub fn reach(&self, n: u64) {
        self.done.set(n);
        self.show();
    }

    /// Shows where it is, if it is time to.
    fn show(&self) {
        let elapsed = self.start.elapsed();
        if elapsed < self.next.get() {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        if self.bar {
            say::draw(&self.drawn(seconds, say::columns()));
            self.next.set(elapsed + FRAME);
        } else if self.done.get() < self.total {
            log(false, format_args!("{:18} {}", self.name, self.place(seconds)));
        }
    }

    /// How far it is: `30/40 images, 12.5 images/s, 1 s left`.
    fn place(&self, seconds: f64) -> String {
        let (done, total, unit) = (self.done.get(), self.total, self.unit);
        let left = match total.checked_sub(done) {
            Some(left) if done > 0 => time(seconds * left as f64 / done as f64) + " left",
            _ => "…".into(),
        };
        format!("{done}/{total} {unit}, {}, {left}", rate(done, seconds, unit))
    }

    /// The bar in at most `columns` - 1 columns, so that no terminal breaks it into two lines: the
    /// name, a rule as far as the phase is, and its place in words.
    fn drawn(&self, seconds: f64, columns: usize) -> String {
        let room = columns.saturating_sub(1);
        let (name, place) = (format!("{:18}", self.name), self.place(seconds));
        let taken = name.chars().count() + place.chars().count() + 2;
        let rule = room.saturating_sub(taken).min(30);
        let text = if rule >= 5 {
            let full = (rule as u64 * self.done.get()).checked_div(self.total);
            let full = (full.unwrap_or(0) as usize).min(rule);
            format!("{name} {}{} {place}", "━".repeat(full), "─".repeat(rule - full))
        } else {
            format!("{name} {place}")
        };
        text.chars().take(room).collect()
    }

    /// Prints a line of the phase where it has no bar.
    pub fn announce(&self, what: &str) {
        if !self.bar {
            tell(format_args!("{:18} {what}", self.name));
        }
    }

    /// Ends the phase and returns its seconds. Prints its line the first time that a phase of this
    /// name ends, and later if it took some seconds and, where there is no bar, no other line was
    /// told just before: a run of many short epochs has other lines.
    pub fn finish(self) -> f64 {
        let elapsed = self.start.elapsed();
        let (done, seconds, unit) = (self.done.get(), elapsed.as_secs_f64(), self.unit);
        let first = TOLD.lock().unwrap_or_else(|e| e.into_inner()).insert(self.name.clone());
        let rate = rate(done, seconds, unit);
        let line = format_args!("{:18} {done} {unit} in {seconds:.1} s, {rate}", self.name);
        if !self.bar {
            log(first, line);
        } else if first || elapsed >= SHORT {
            self.clear();
            tell(line);
        }
        seconds
    }

    fn clear(&self) {
        if self.bar {
            say::draw("");
        }
    }
}

impl Drop for PhaseBar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The rate in things per second, with a digit behind the point where it matters.
fn rate(done: u64, seconds: f64, unit: &str) -> String {
    let rate = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
    if rate < 100.0 { format!("{rate:.1} {unit}/s") } else { format!("{rate:.0} {unit}/s") }
}

/// A time in the unit that suits it.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(done: u64, total: u64) -> PhaseBar {
        PhaseBar {
            name: "k-means".into(),
            unit: "images",
            total,
            start: Instant::now(),
            bar: false,
            done: Cell::new(done),
            next: Cell::new(Duration::MAX),
        }
    }

    #[test]
    fn a_bar_says_how_far_it_is_and_fits_any_terminal() {
        let bar = phase(30, 40).drawn(2.4, 120);
        assert_eq!(
            bar,
            format!(
                "k-means            {}{} 30/40 images, 12.5 images/s, 1 s left",
                "━".repeat(22),
                "─".repeat(8)
            )
        );
        for columns in [0, 1, 20, 40, 66, 67, 79, 80, 81, 300] {
            let width = phase(30, 40).drawn(2.4, columns).chars().count();
            assert!(width < columns.max(1), "{columns}: {width}");
        }
        assert!(phase(30, 40).drawn(2.4, 80).contains("━"));
        assert!(phase(0, 40).drawn(0.0, 80).ends_with("0/40 images, 0.0 images/s, …"));
        // More may come than was expected.
        assert!(phase(50, 40).drawn(1.0, 80).ends_with("50/40 images, 50.0 images/s, …"));
        assert!(phase(0, 0).drawn(1.0, 80).contains("0/0 images"));
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let texts = [rate(25, 2.0, "images"), rate(1000, 0.5, "images"), rate(0, 0.0, "engines")];
        assert_eq!(texts, ["12.5 images/s", "2000 images/s", "0.0 engines/s"]);
        let times = [0.2, 89.0, 100.0, 7000.0, 360_000.0].map(time);
        assert_eq!(times, ["0 s", "89 s", "2 min", "1.9 h", "4.2 days"]);
    }
}
