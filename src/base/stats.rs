//! Statistics of measured times, without assumptions about their distribution.

use serde::{Deserialize, Serialize};

/// Number, extremes and quartiles of some values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub n: usize,
    pub min: f64,
    pub q1: f64,
    pub median: f64,
    pub q3: f64,
    pub max: f64,
}

impl Summary {
    /// The summary of at least one value. A quartile between two values is interpolated: that at
    /// p lies (n − 1)·p places behind the smallest (type 7 of Hyndman and Fan, as R and NumPy have
    /// it).
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |p: f64| {
            let place = (sorted.len() - 1) as f64 * p;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + place.fract() * (high - low)
        };
        Summary {
            n: values.len(),
            min: at(0.0),
            q1: at(0.25),
            median: at(0.5),
            q3: at(0.75),
            max: at(1.0),
        }
    }

    /// The noise of the median: the half-width of McGill, Tukey and Larsen's notch over the median
    /// (1.57 · interquartile range / √n). Notches are made so that two medians whose notches do not
    /// meet differ at about 95 %. ∞ below three values.
    pub fn noise(&self) -> f64 {
        if self.n < 3 {
            return f64::INFINITY;
        }
        1.57 * (self.q3 - self.q1) / (self.n as f64).sqrt() / self.median
    }
}

/// An interval for the ratio of what `new` and `old` measure: 1 where nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The median of all ratios of a new value to an old one (Hodges and Lehmann's estimate).
    pub middle: f64,
    /// The test of Mann and Whitney refuses all ratios that are not between these two.
    pub low: f64,
    pub high: f64,
}

/// The ratio of two samples of positive values, and its interval at `confidence`. `None` where the
/// samples are too small for any interval: of 3 and 3 values the widest has 90 %.
///
/// Nothing is assumed but that both samples come from one distribution, scaled: then the number of
/// pairs in which the new value is the smaller has the distribution of Mann and Whitney's U, which
/// is counted exactly.
pub fn ratio(old: &[f64], new: &[f64], confidence: f64) -> Option<Ratio> {
    let mut ratios: Vec<f64> = new.iter().flat_map(|n| old.iter().map(move |o| n / o)).collect();
    ratios.sort_by(f64::total_cmp);
    let outside = outside(old.len(), new.len(), (1.0 - confidence) / 2.0)?;
    let pairs = ratios.len();
    let middle = (ratios[(pairs - 1) / 2] + ratios[pairs / 2]) / 2.0;
    Some(Ratio { middle, low: ratios[outside], high: ratios[pairs - 1 - outside] })
}

/// The largest number of the smallest ratios that the interval may leave out: the largest c with
/// P(U ≤ c) ≤ `tail`. `None`: not even one side may be left at all.
fn outside(m: usize, n: usize, tail: f64) -> Option<usize> {
    let chances = chances(m, n);
    let mut sum = 0.0;
    let mut found = None;
    for (u, chance) in chances.iter().enumerate() {
        sum += chance;
        // NOTE: sums of chances are rounded.
        if sum > tail * (1.0 + 1e-9) {
            break;
        }
        found = Some(u);
    }
    found
}

/// The chance of each value of Mann and Whitney's U, 0 to m·n, for samples of m and n values from
/// one distribution.
fn chances(m: usize, n: usize) -> Vec<f64> {
    if m == 0 || n == 0 {
        return vec![1.0];
    }
    // NOTE: by the value that is the largest of all. If it is one of the m, it is above all n
    // others; so U grows by n. table[j] are the chances of (i, j).
    let mut table: Vec<Vec<f64>> = vec![vec![1.0]; n + 1];
    for i in 1..=m {
        for j in 1..=n {
            let (with, without) = (table[j].clone(), &table[j - 1]);
            let of_m = i as f64 / (i + j) as f64;
            let mut next = vec![0.0; i * j + 1];
            for (u, chance) in with.iter().enumerate() {
                next[u + j] += of_m * chance;
            }
            for (u, chance) in without.iter().enumerate() {
                next[u] += (1.0 - of_m) * chance;
            }
            table[j] = next;
        }
        table[0] = vec![1.0];
    }
    table.swap_remove(n)
}

/// Up to `few` of the numbers below `all`, spread evenly over them.
pub fn spread(all: usize, few: usize) -> Vec<usize> {
    let few = few.min(all);
    (0..few).map(|i| (2 * i + 1) * all / (2 * few)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::{Rng, Stream};

    #[test]
    fn quartiles_are_those_of_r_and_numpy() {
        let s = Summary::of(&[7.0, 15.0, 36.0, 39.0, 40.0, 41.0]);
        assert_eq!((s.n, s.min, s.q1, s.median, s.q3, s.max), (6, 7.0, 20.25, 37.5, 39.75, 41.0));
        let s = Summary::of(&[3.0, 1.0, 2.0]);
        assert_eq!((s.q1, s.median, s.q3), (1.5, 2.0, 2.5));
        let one = Summary::of(&[5.0]);
        assert_eq!((one.n, one.min, one.q1, one.max), (1, 5.0, 5.0, 5.0));
    }

    #[test]
    fn noise_falls_with_the_root_of_the_number() {
        let few: Vec<f64> = (0..4).map(|i| 9.0 + f64::from(i % 2) * 2.0).collect();
        let many: Vec<f64> = (0..400).map(|i| 9.0 + f64::from(i % 2) * 2.0).collect();
        let (few, many) = (Summary::of(&few).noise(), Summary::of(&many).noise());
        assert!((few - 1.57 * 2.0 / 2.0 / 10.0).abs() <= 1e-12, "{few}");
        assert!((few / many - 10.0).abs() <= 1e-9, "{few} {many}");
        assert_eq!(Summary::of(&[1.0, 1.0]).noise(), f64::INFINITY);
    }

    #[test]
    fn the_chances_of_u_are_counted() {
        // Of 3 and 2 values there are 10 orders; U has 1, 1, 2, 2, 2, 1, 1 of them.
        let want = [1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0].map(|c| c / 10.0);
        for (got, want) in [chances(3, 2), chances(2, 3)].iter().flat_map(|c| c.iter().zip(want)) {
            assert!((got - want).abs() <= 1e-12, "{got} {want}");
        }
        let large = chances(40, 25);
        assert!((large.iter().sum::<f64>() - 1.0).abs() <= 1e-9 && large.len() == 1001);
        // Tables of the test (Mann and Whitney 1947), two sides: at 5 % and 1 %.
        for (m, n, tail, want) in [
            (5, 5, 0.025, Some(2)),
            (5, 5, 0.005, Some(0)),
            (8, 10, 0.025, Some(17)),
            (3, 3, 0.025, None),
        ] {
            assert_eq!(outside(m, n, tail), want, "{m} {n}");
        }
    }

    #[test]
    fn an_interval_holds_the_ratio_as_often_as_it_says() {
        let mut held = 0;
        for seed in 0..2000 {
            let mut rng = Rng::new(seed, Stream::Other, 0, 0);
            // A time is a floor and what disturbs it, now and then much.
            let mut time = || 1.0 + 0.05 * f64::from(rng.uniform(0.0, 1.0)).powi(4);
            let (old, new): (Vec<f64>, Vec<f64>) =
                ((0..6).map(|_| time()).collect(), (0..8).map(|_| 1.5 * time()).collect());
            let Ratio { low, high, middle } = ratio(&old, &new, 0.95).unwrap();
            assert!(low <= middle && middle <= high);
            held += usize::from((low..=high).contains(&1.5));
        }
        // 95 % or somewhat more, since U is a whole number; 3 deviations of 2000 draws are 1.5 %.
        assert!((1870..=1970).contains(&held), "{held} of 2000");
    }

    #[test]
    fn few_are_spread_over_all() {
        assert_eq!(spread(100, 4), [12, 37, 62, 87]);
        assert_eq!((spread(3, 6), spread(0, 6), spread(5, 0)), (vec![0, 1, 2], vec![], vec![]));
    }
}
