//! Two reports beside each other.

use serde::{Deserialize, Serialize};

use crate::base::stats::{Ratio, Summary, ratio};
use crate::report::bench::text::{table, wrap};

/// The confidence of the intervals that verdicts are made from.
const CONFIDENCE: f64 = 0.99;
/// A change that is too small to matter, as a ratio: less is no verdict, however sure it is.
const MARGIN: f64 = 1.02;
/// A change that two runs must be able to show, as a ratio, to be called the same.
const VISIBLE: f64 = 1.1;

/// What became of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// No change is seen, and one of 10 % would be.
    Same,
    /// Faster by more than 2 %, surely.
    Faster,
    /// Slower by more than 2 %, surely.
    Slower,
    /// The runs are too short or too noisy to tell.
    Unsure,
}

impl Verdict {
    /// The verdict on two samples of times, with the interval of their ratio.
    pub fn of(old: &[f64], new: &[f64]) -> (Self, Option<Ratio>) {
        let Some(ratio) = ratio(old, new, CONFIDENCE) else { return (Verdict::Unsure, None) };
        let verdict = if ratio.low > MARGIN {
            Verdict::Slower
        } else if ratio.high < 1.0 / MARGIN {
            Verdict::Faster
        } else if ratio.low >= 1.0 / VISIBLE && ratio.high <= VISIBLE {
            Verdict::Same
        } else {
            Verdict::Unsure
        };
        (verdict, Some(ratio))
    }

    fn name(self) -> &'static str {
        match self {
            Verdict::Same => "SAME",
            Verdict::Faster => "FASTER",
            Verdict::Slower => "SLOWER",
            Verdict::Unsure => "UNSURE",
        }
    }
}

/// A time in both reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The phase or the op.
    pub what: String,
    /// Of which the summaries are: `s` (an epoch's phase) or `µs` (the median of an epoch's calls).
    pub unit: String,
    pub old: Summary,
    pub new: Summary,
    /// New over old; `None` where there are too few samples.
    pub ratio: Option<Ratio>,
    pub verdict: Verdict,
    /// The share of an op in the time of its epoch, the larger of both reports, in percent; of a
    /// phase, that in the new report.
    pub share_percent: f64,
}

impl Compared {
    /// Compares the samples of an epoch each.
    pub fn new(what: &str, unit: &str, share_percent: f64, old: &[f64], new: &[f64]) -> Self {
        let (verdict, ratio) = Verdict::of(old, new);
        let (old, new) = (Summary::of(old), Summary::of(new));
        let (what, unit) = (what.into(), unit.into());
        Compared { what, unit, old, new, ratio, verdict, share_percent }
    }

    /// Slower by so many percent, surely.
    pub fn surely_slower_by(&self) -> Option<f64> {
        let low = self.ratio.filter(|_| self.verdict == Verdict::Slower)?.low;
        Some(100.0 * (low - 1.0))
    }

    /// Both medians with their quartiles, the difference and its interval in percent, the verdict.
    pub fn cells(&self) -> Vec<String> {
        let spread = |s: &Summary| {
            let digits = if self.unit == "s" { 3 } else { 1 };
            format!("{:.digits$} ±{:.0}%", s.median, 50.0 * (s.q3 - s.q1) / s.median)
        };
        let percent = |ratio: f64| format!("{:+.1}", 100.0 * (ratio - 1.0));
        vec![
            self.what.replace(" → ", "→").replace(", ", " "),
            spread(&self.old),
            spread(&self.new),
            self.ratio.map_or("-".into(), |r| percent(r.middle)),
            self.ratio.map_or("-".into(), |r| format!("{}…{}", percent(r.low), percent(r.high))),
            self.verdict.name().into(),
        ]
    }
}

/// A comparison with an older report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Which report it was: its commit and date.
    pub old: String,
    /// What differs besides the times, which was to be ignored.
    pub ignored: Vec<String>,
    /// Phases, then ops, those that take most of the time first.
    pub phases: Vec<Compared>,
    pub ops: Vec<Compared>,
    /// Ops that only one of the reports has.
    pub missing: Vec<String>,
}

impl Comparison {
    /// The row that is most surely slower, among phases and ops of at least 1 % of the time.
    pub fn slowest(&self) -> Option<(&Compared, f64)> {
        let rows = self.phases.iter().chain(&self.ops).filter(|row| row.share_percent >= 1.0);
        rows.filter_map(|row| Some((row, row.surely_slower_by()?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The comparison as text: phases, the ops that changed, and others until there are `top`.
    pub fn text(&self, top: usize) -> String {
        let mut lines = vec![wrap(&format!("against {}", self.old))];
        if !self.ignored.is_empty() {
            lines.push(wrap(&format!("ignored: {}", self.ignored.join("; "))));
        }
        let header = ["", "old", "new", "%", "99 % interval", "verdict"];
        lines.push(table(&header, self.phases.iter().map(Compared::cells).collect()));
        let changed = |row: &&Compared| matches!(row.verdict, Verdict::Faster | Verdict::Slower);
        let (mut rows, others): (Vec<&Compared>, Vec<&Compared>) =
            self.ops.iter().partition(changed);
        let shown = if top == 0 { others.len() } else { top.saturating_sub(rows.len()) };
        rows.extend(others.iter().take(shown));
        let header = ["op, µs", "old", "new", "%", "99 % interval", "verdict"];
        lines.push(table(&header, rows.iter().map(|row| row.cells()).collect()));
        let count = |verdict| self.ops.iter().filter(|row| row.verdict == verdict).count();
        lines.push(format!(
            "ops: {} SAME, {} FASTER, {} SLOWER, {} UNSURE",
            count(Verdict::Same),
            count(Verdict::Faster),
            count(Verdict::Slower),
            count(Verdict::Unsure)
        ));
        if !self.missing.is_empty() {
            lines.push(wrap(&format!("in one report only: {}", self.missing.join("; "))));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::{Rng, Stream};

    /// `n` times of a thing that takes `seconds`, with a percent of noise and now and then more.
    fn times(seed: u64, n: usize, seconds: f64) -> Vec<f64> {
        let mut rng = Rng::new(seed, Stream::Other, 0, 0);
        let mut time = || {
            let late = if rng.uniform(0.0, 1.0) < 0.05 { 0.03 } else { 0.0 };
            seconds * (1.0 + 0.01 * f64::from(rng.normal()) + late)
        };
        (0..n).map(|_| time()).collect()
    }

    fn verdicts(n: usize, slower: f64) -> [usize; 4] {
        let mut counts = [0; 4];
        for seed in 0..1000 {
            let (old, new) = (times(2 * seed, n, 1.0), times(2 * seed + 1, n, slower));
            counts[Verdict::of(&old, &new).0 as usize] += 1;
        }
        counts
    }

    #[test]
    fn two_runs_of_one_build_are_the_same() {
        for n in [5, 8, 20] {
            let [same, faster, slower, unsure] = verdicts(n, 1.0);
            // Of 1000 pairs 5 lie outside of a 99 % interval on each side, few of them by 2 %.
            assert!(
                same >= 980 && faster <= 3 && slower <= 3,
                "{n}: {same} {faster} {slower} {unsure}"
            );
        }
    }

    #[test]
    fn what_is_slower_is_found_and_what_matters_little_is_not() {
        let [.., slower, _] = verdicts(5, 1.15);
        assert!(slower >= 970, "{slower}");
        let [_, faster, ..] = verdicts(8, 0.9);
        assert!(faster >= 990, "{faster}");
        let [same, _, slower, _] = verdicts(20, 1.01);
        assert!(same >= 980 && slower == 0, "{same} {slower}");
    }

    #[test]
    fn few_or_wild_times_tell_nothing() {
        assert_eq!(Verdict::of(&[1.0; 3], &[2.0; 3]), (Verdict::Unsure, None));
        let wild = [1.0, 2.0, 1.5, 1.0, 1.8];
        assert_eq!(Verdict::of(&wild, &wild).0, Verdict::Unsure);
        let row = Compared::new("x", "s", 50.0, &[1.0; 5], &[1.5; 5]);
        assert_eq!((row.verdict, row.surely_slower_by()), (Verdict::Slower, Some(50.0)));
        assert_eq!(row.cells()[3..], ["+50.0", "+50.0…+50.0", "SLOWER"]);
        assert_eq!(Compared::new("x", "s", 50.0, &[1.5; 5], &[1.0; 5]).surely_slower_by(), None);
    }
}
