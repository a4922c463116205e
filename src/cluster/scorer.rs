//! Centroids as what scores features.

use crate::base::Result;
use crate::device::ops::{Classifier, KMeansClassifier, Metric, kmeans_classifier};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::net::FEATURES;

/// Centroids, and room for the classifier that a metric makes of them. Whoever wants to score asks
/// for the classifier and gets it made of the centroids as they are then: there is no other way, so
/// that it cannot be forgotten after they moved.
#[derive(Clone, Copy, Debug)]
pub struct Scorer {
    /// (k, FEATURES)
    pub centroids: Slot<f32>,
    room: Classifier,
}

impl Scorer {
    /// For `k` centroids; `name` tells them from others in the plan.
    pub fn plan(layout: &mut Layout, name: &str, k: usize) -> Self {
        let mut state = |what: &str, len| layout.take(Pool::State, format!("{what}{name}"), len);
        let room =
            Classifier { w: state("classifier", k * FEATURES), b: state("classifier bias", k), k };
        Scorer { room, centroids: state("centroids", k * FEATURES) }
    }

    /// Clusters.
    pub fn k(&self) -> usize {
        self.room.k
    }

    /// The centroids of now as a classifier. It scores by these until the next call, wherever they
    /// move.
    pub fn by(&self, dev: &mut dyn Engine, metric: Metric) -> Result<Classifier> {
        let (classifier, centroids) = (self.room, self.centroids);
        kmeans_classifier(dev, KMeansClassifier { classifier, centroids, metric })?;
        Ok(classifier)
    }

    /// A classifier of weights (k, FEATURES) and biases (k) that were learned, in the same room.
    pub fn learned(&self, dev: &mut dyn Engine, w: &[f32], b: &[f32]) -> Result<Classifier> {
        dev.write(self.room.w, w)?;
        dev.write(self.room.b, b)?;
        Ok(self.room)
    }
}
