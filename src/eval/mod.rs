//! Pictures' scores: confusion counts → cluster-to-class matching → metrics, what can be said
//! without labels, and the rows of a run's epochs.
//!
//! Source: paper section 4 and the released code's `scores`/`get_result_metrics`, with the
//! partition tables by class.

pub mod confusion;
pub mod epochs;
pub mod matching;
pub mod metrics;
pub mod segments;
pub mod unlabelled;

pub use confusion::Confusion;
pub use epochs::EpochRow;
pub use matching::{ClassOf, Matching, hungarian, majority_vote};
pub use metrics::{ClassScore, PartScore, Scores};
pub use segments::Segment;
pub use unlabelled::Unlabelled;
