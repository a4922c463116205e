//! Centroids that score features.

use crate::base::Result;
use crate::device::ops::{Classifier, KMeansClassifier, Metric, kmeans_classifier};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::net::FEATURES;

/// Centroids, and room for the classifier that is equal to them under a metric. Whoever wants to
/// score asks for the classifier, and gets one made from the present centroids. There is no other
/// way to get one, so that it cannot be stale after they moved.
#[derive(Clone, Copy, Debug)]
pub struct Scorer {
    /// (k, FEATURES), the centroids.
    pub centroids: Slot<f32>,
    /// Memory for the classifier.
    room: Classifier,
}

impl Scorer {
    /// Takes the memory for `k` centroids. `name` tells them from others in the layout's table.
    pub fn plan(layout: &mut Layout, name: &str, k: usize) -> Self {
        let mut state = |what: &str, len| layout.take(Pool::State, format!("{what}{name}"), len);
        let room =
            Classifier { w: state("classifier", k * FEATURES), b: state("classifier bias", k), k };
        Scorer { room, centroids: state("centroids", k * FEATURES) }
    }

    /// Number of clusters.
    pub fn k(&self) -> usize {
        self.room.k
    }

    /// The present centroids as a classifier under `metric`. It scores by these until the next
    /// call, even if the centroids move.
    pub fn by(&self, dev: &mut dyn Engine, metric: Metric) -> Result<Classifier> {
        let (classifier, centroids) = (self.room, self.centroids);
        kmeans_classifier(dev, KMeansClassifier { classifier, centroids, metric })?;
        Ok(classifier)
    }

    /// A classifier of learned weights `w` (k, FEATURES) and biases `b` (k), in the same memory.
    pub fn learned(&self, dev: &mut dyn Engine, w: &[f32], b: &[f32]) -> Result<Classifier> {
        dev.write(self.room.w, w)?;
        dev.write(self.room.b, b)?;
        Ok(self.room)
    }
}
