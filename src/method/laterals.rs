//! First weights of the pyramid's laterals, computed from the images: a trained backbone's features
//! are projected on their principal components.
//!
//! ```text
//! the last two stages share the pyramid's channels; for each, over all pixels f of some images:
//!     μ = mean f,  Σ = mean (f − μ)(f − μ)ᵀ,  A = eigenvectors of Σ with the largest eigenvalues
//!     lateral: W = s·A, b = −W·μ, with s such that the mean of ‖W·f + b‖² is the same for both
//! all other laterals are 0, so that the merged map is these two projections side by side
//! ```
//! Random laterals mix the stages before anything is learned, whereas these keep the distances
//! between pixels that training on ImageNet has given. The paper uses random ones.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::augment::View;
use crate::base::Result;
use crate::base::rng::Stream;
use crate::data::ImageStore;
use crate::device::{Engine, Layout};
use crate::method::{Batching, Common, Programs, Tick, program_spec};
use crate::net::weights::{Tensor, Weights};
use crate::net::{FEATURES, Mode, Network, Program};
use crate::recipe::Recipe;

/// Largest number of images that are looked at, rounded up to whole batches.
pub const IMAGES: usize = 512;
/// Number of last stages that share the channels.
const STAGES: usize = 2;

/// The computation of the laterals. It is planned beside a method, and runs once, before the first
/// epoch.
pub struct PcaLaterals {
    /// Programs of forward passes that keep the outputs of the stages.
    programs: Programs,
}

impl PcaLaterals {
    /// Plans the computation for a data set of `images` images.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        recipe: &Recipe,
        images: usize,
    ) -> Result<Self> {
        let batching = Batching { images, batch: recipe.batch_cluster };
        let shape = program_spec(recipe);
        let programs = Programs::plan(dev, layout, net, batching, 1, shape, Mode::Stages)?;
        Ok(PcaLaterals { programs })
    }

    /// Number of images that [`PcaLaterals::fit`] will look at, out of `images` in the data set.
    pub fn images(recipe: &Recipe, images: usize) -> usize {
        IMAGES.next_multiple_of(recipe.batch_cluster).min(images)
    }

    /// Computes the laterals from images without augmentation, writes them to the network, and
    /// returns them.
    pub fn fit(
        &self,
        dev: &mut dyn Engine,
        common: &mut Common,
        set: &ImageStore,
        tick: Tick,
    ) -> Result<Weights> {
        let order = common.order(Stream::ClusterOrder, 0, 0);
        let looked = &order[..Self::images(&common.recipe, order.len())];
        let mut components = Components::default();
        common.net.fold(dev)?;
        for ids in looked.chunks(common.recipe.batch_cluster) {
            let program = self.programs.of(ids.len());
            common.stage_views(dev, program, set, ids, 0, &[View::Plain])?;
            common.feeder.render(dev, program.x, ids.len(), 0, View::Plain)?;
            program.forward(dev, &common.net)?;
            components.add(dev, &common.net, program, ids.len())?;
            tick(ids.len())?;
        }
        let weights = components.laterals(&common.net);
        common.net.load(dev, &weights)?;
        Ok(weights)
    }
}

/// Statistics of the last stages' outputs, from which their principal components follow.
#[derive(Default)]
pub struct Components {
    /// The statistics by stage, from the first of those that share the channels.
    moments: Vec<Moments>,
}

impl Components {
    /// The number of the first stage that shares the channels.
    fn first(net: &Network) -> usize {
        net.architecture.levels.saturating_sub(STAGES)
    }

    /// Adds the outputs for the first `images` images of a program whose forward pass in
    /// [`Mode::Stages`] was just queued (a host synchronisation).
    pub fn add(
        &mut self,
        dev: &mut dyn Engine,
        net: &Network,
        program: &Program,
        images: usize,
    ) -> Result<()> {
        for (i, level) in (Self::first(net)..net.architecture.levels).enumerate() {
            let channels = net.stage_channels(level);
            if self.moments.len() == i {
                self.moments.push(Moments::new(channels));
            }
            let values = dev.read_acts(program.stages[level])?;
            let values = &values[..values.len() / program.spec.n * images];
            let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            self.moments[i].add(DMatrix::from_vec(channels, values.len() / channels, values));
        }
        Ok(())
    }

    /// The weights (FEATURES, channels, 1, 1) and biases (FEATURES) of every lateral, by their
    /// names in checkpoints.
    pub fn laterals(&self, net: &Network) -> Weights {
        let mut weights = Weights::default();
        for level in 0..net.architecture.levels {
            let channels = net.stage_channels(level);
            let (mut w, mut b) = (vec![0.0; FEATURES * channels], vec![0.0; FEATURES]);
            if let Some(i) = level.checked_sub(Self::first(net)) {
                let share = FEATURES / self.moments.len();
                for (c, (row, bias)) in self.moments[i].projection(share).into_iter().enumerate() {
                    let at = i * share + c;
                    w[at * channels..][..channels].copy_from_slice(&row);
                    b[at] = bias;
                }
            }
            let name = format!("fpn.lateral{}", level + 2);
            weights.tensors.insert(
                format!("{name}.weight"),
                Tensor::from_f32(vec![FEATURES, channels, 1, 1], w),
            );
            weights.tensors.insert(format!("{name}.bias"), Tensor::from_f32(vec![FEATURES], b));
        }
        weights
    }
}

/// Sums over all pixels of a stage, of their vectors and of the vectors' outer products, in f64.
struct Moments {
    pixels: usize,
    sum: DVector<f64>,
    products: DMatrix<f64>,
}

impl Moments {
    fn new(channels: usize) -> Self {
        Moments {
            pixels: 0,
            sum: DVector::zeros(channels),
            products: DMatrix::zeros(channels, channels),
        }
    }

    /// Adds pixels, one in each column.
    fn add(&mut self, pixels: DMatrix<f64>) {
        self.pixels += pixels.ncols();
        self.sum += pixels.column_sum();
        self.products.gemm(1.0, &pixels, &pixels.transpose(), 1.0);
    }

    /// The rows and biases of the projection on the first `n` principal components (or all, if
    /// there are fewer channels), the one with the largest variance first. They are scaled so that
    /// the mean squared length of the projection is 1.
    fn projection(&self, n: usize) -> Vec<(Vec<f32>, f32)> {
        let count = self.pixels as f64;
        let mean = &self.sum / count;
        let covariance = &self.products / count - &mean * mean.transpose();
        let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(covariance);
        let mut order: Vec<usize> = (0..eigenvalues.len()).collect();
        order.sort_by(|&a, &b| eigenvalues[b].total_cmp(&eigenvalues[a]).then(a.cmp(&b)));
        order.truncate(n);
        let energy: f64 = order.iter().map(|&i| eigenvalues[i].max(0.0)).sum();
        // If all pixels of a stage are the same, the variance is only rounding of the sums: its
        // projection is 0.
        let scale = if energy > 1e-10 * mean.norm_squared() { 1.0 / energy.sqrt() } else { 0.0 };
        let row = |&i: &usize| {
            let axis = eigenvectors.column(i);
            // An eigenvector's sign is arbitrary: here its largest element is made positive.
            let scale = scale * axis[axis.iamax()].signum();
            let row: Vec<f32> = axis.iter().map(|&v| (scale * v) as f32).collect();
            (row, (-scale * axis.dot(&mean)) as f32)
        };
        order.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_ordered_scaled_and_centred() {
        // Points around (10, -5), with standard deviation 2 along (3, 4)/5 and 1 across it.
        let mut moments = Moments::new(2);
        let points: Vec<f64> = [(2.0, 1.0), (2.0, -1.0), (-2.0, 1.0), (-2.0, -1.0)]
            .iter()
            .flat_map(|(u, v)| [10.0 + 0.6 * u - 0.8 * v, -5.0 + 0.8 * u + 0.6 * v])
            .collect();
        moments.add(DMatrix::from_vec(2, 2, points[..4].to_vec()));
        moments.add(DMatrix::from_vec(2, 2, points[4..].to_vec()));
        let all = moments.projection(2);
        // The variances are 4 and 1: the mean squared length is 5 before scaling.
        let scale = 1.0 / 5f64.sqrt();
        let want = [[0.6 * scale, 0.8 * scale], [0.8 * scale, -0.6 * scale]];
        for ((row, bias), want) in all.iter().zip(want) {
            assert!(
                row.iter().zip(want).all(|(&r, w)| (f64::from(r) - w).abs() <= 1e-6),
                "{row:?}, want {want:?}"
            );
            assert!((f64::from(*bias) + 10.0 * want[0] - 5.0 * want[1]).abs() <= 1e-5, "{bias}");
        }
        let energy: f64 = points
            .chunks(2)
            .flat_map(|p| {
                all.iter().map(move |(w, b)| {
                    p[0] * f64::from(w[0]) + p[1] * f64::from(w[1]) + f64::from(*b)
                })
            })
            .map(|v| v * v / 4.0)
            .sum();
        assert!((energy - 1.0).abs() <= 1e-5, "{energy}");
        // Pixels that are all the same, as in one small image, give zeros and no infinity.
        let mut flat = Moments::new(2);
        flat.add(DMatrix::from_vec(2, 3, vec![0.1, 0.7, 0.1, 0.7, 0.1, 0.7]));
        assert!(
            flat.projection(2)
                .iter()
                .all(|(row, bias)| row.iter().chain([bias]).all(|&v| v == 0.0))
        );
        // If there is one component only, it has all of the length.
        assert!((moments.projection(1)[0].0[1] - 0.4).abs() <= 1e-6);
    }
}
