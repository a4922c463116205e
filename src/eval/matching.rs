//! The class that each cluster stands for: one-to-one for the scores, many-to-one for pictures.

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::eval::Confusion;

/// The class of each cluster (K); `None` where a cluster stands for no class.
pub type ClassOf = Vec<Option<usize>>;

/// Which class each cluster is scored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Matching {
    /// Cluster i is class i, as in classifiers that were trained on labels.
    Identity,
    /// Each class has one cluster, chosen by the Hungarian method.
    OneToOne,
    /// Each cluster has its commonest class, for over-clustering. Several clusters may share a
    /// class.
    ManyToOne,
}

impl Matching {
    /// Refuses a one-to-one matching of fewer clusters than the `occur` classes of the labels: some
    /// classes could only be wrong.
    pub fn check(self, occur: usize, clusters: usize) -> Result<()> {
        if self == Matching::OneToOne && occur > clusters {
            let what = format!(
                "{occur} classes occur in the labels, more than {clusters} clusters can be \
                 matched with"
            );
            return Err(Error::input(
                what,
                format!("use at least {occur} --clusters, or --matching many-to-one"),
            ));
        }
        Ok(())
    }

    /// Matches the clusters of a confusion.
    ///
    /// Errors: those of [`Matching::check`]; [`Matching::Identity`] where the labels have another
    /// number of classes than was learned.
    pub fn of(self, m: &Confusion) -> Result<ClassOf> {
        self.check(m.occurring(), m.clusters)?;
        match self {
            Matching::ManyToOne => Ok(majority_vote(m)),
            Matching::OneToOne => Ok(hungarian(m)),
            Matching::Identity if m.clusters != m.classes => {
                let what = format!(
                    "the network was trained on {} classes, these labels have {}",
                    m.clusters, m.classes
                );
                Err(Error::input(what, "evaluate it on the --classes that it was trained on"))
            }
            Matching::Identity => Ok((0..m.clusters).map(Some).collect()),
        }
    }

    /// The class of each cluster in pictures and names. Several clusters may share a class, as in
    /// the pictures of the paper's supplement; a network trained on labels predicts its own
    /// classes.
    pub fn in_pictures(self, m: &Confusion) -> Result<ClassOf> {
        if self == Matching::Identity { self.of(m) } else { Ok(majority_vote(m)) }
    }
}

/// The one-to-one matching that leaves the most labelled pixels right (Hungarian method, fitted on
/// the evaluated set itself, as every published number is).
///
/// K < C leaves C − K classes without a cluster; K > C leaves K − C clusters without a class, and
/// their pixels are wrong. Among matchings of equal accuracy the same table always gives the same
/// one.
pub fn hungarian(m: &Confusion) -> ClassOf {
    let (c, k) = (m.classes, m.clusters);
    // NOTE: the library assigns every row, so the shorter side has to be the rows.
    if k <= c {
        let weights = Matrix::from_fn(k, c, |(cluster, class)| m.at(class, cluster) as i64);
        kuhn_munkres(&weights).1.into_iter().map(Some).collect()
    } else {
        let weights = Matrix::from_fn(c, k, |(class, cluster)| m.at(class, cluster) as i64);
        let mut class_of = vec![None; k];
        for (class, cluster) in kuhn_munkres(&weights).1.into_iter().enumerate() {
            class_of[cluster] = Some(class);
        }
        class_of
    }
}

/// The commonest class of each cluster, the lowest on a tie, `None` for a cluster with no labelled
/// pixel.
///
/// For pictures only, as in the supplement's: several clusters may share a class, so scores by this
/// matching flatter.
pub fn majority_vote(m: &Confusion) -> ClassOf {
    let best = |k| {
        (0..m.classes).filter(|&c| m.at(c, k) > 0).min_by_key(|&c| std::cmp::Reverse(m.at(c, k)))
    };
    (0..m.clusters).map(best).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(classes: usize, clusters: usize, counts: &[u64]) -> Confusion {
        Confusion { classes, clusters, counts: counts.to_vec() }
    }

    fn correct(m: &Confusion, class_of: &ClassOf) -> u64 {
        class_of.iter().enumerate().filter_map(|(k, c)| Some(m.at((*c)?, k))).sum()
    }

    /// The most pixels any one-to-one matching gets right, by trying them all: cluster `k` on,
    /// `taken` classes gone.
    fn brute_force(m: &Confusion, k: usize, taken: u32) -> u64 {
        if k == m.clusters {
            return 0;
        }
        let skip = brute_force(m, k + 1, taken);
        let free = (0..m.classes).filter(|c| taken >> c & 1 == 0);
        free.map(|c| m.at(c, k) + brute_force(m, k + 1, taken | 1 << c)).fold(skip, u64::max)
    }

    #[test]
    fn greedy_choices_are_not_the_best_ones() {
        // Greedy takes 10 and then 1; the best is 9 + 8.
        let m = matrix(2, 2, &[10, 9, 8, 1]);
        assert_eq!(hungarian(&m), [Some(1), Some(0)]);
        assert_eq!(majority_vote(&m), [Some(0), Some(0)]);
    }

    #[test]
    fn unequal_numbers_leave_the_least_useful_unmatched() {
        assert_eq!(hungarian(&matrix(2, 3, &[5, 1, 0, 0, 2, 9])), [Some(0), None, Some(1)]);
        assert_eq!(hungarian(&matrix(3, 2, &[0, 7, 1, 1, 6, 0])), [Some(2), Some(0)]);
    }

    #[test]
    fn votes_break_ties_downward_and_leave_empty_clusters_out() {
        assert_eq!(majority_vote(&matrix(3, 2, &[0, 0, 4, 0, 4, 0])), [Some(1), None]);
    }

    proptest! {
        #[test]
        fn hungarian_is_one_to_one_and_the_best((m, _) in tables()) {
            let class_of = hungarian(&m);
            let mut used: Vec<usize> = class_of.iter().flatten().copied().collect();
            prop_assert_eq!(used.len(), m.classes.min(m.clusters));
            used.sort();
            used.dedup();
            prop_assert_eq!(used.len(), m.classes.min(m.clusters));
            prop_assert_eq!(correct(&m, &class_of), brute_force(&m, 0, 0));
            prop_assert!(correct(&m, &majority_vote(&m)) >= correct(&m, &class_of));
        }

        #[test]
        fn renaming_the_clusters_changes_no_score((m, order) in tables()) {
            let counts = (0..m.classes).flat_map(|c| order.iter().map(move |&k| (c, k)));
            let counts: Vec<u64> = counts.map(|(c, k)| m.at(c, k)).collect();
            let renamed = matrix(m.classes, m.clusters, &counts);
            prop_assert_eq!(correct(&m, &hungarian(&m)), correct(&renamed, &hungarian(&renamed)));
            let votes = majority_vote(&m);
            let want: ClassOf = order.iter().map(|&k| votes[k]).collect();
            prop_assert_eq!(majority_vote(&renamed), want);
        }
    }

    /// Tables of 1..=5 classes and clusters, small counts so that ties are common, and an order of
    /// the clusters.
    fn tables() -> impl Strategy<Value = (Confusion, Vec<usize>)> {
        (1usize..=5, 1usize..=5).prop_flat_map(|(c, k)| {
            let counts = proptest::collection::vec(0u64..12, c * k);
            let order = Just((0..k).collect::<Vec<_>>()).prop_shuffle();
            (counts.prop_map(move |v| matrix(c, k, &v)), order)
        })
    }
}
