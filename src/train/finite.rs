//! The search for tensors that hold a number that is not finite, or a negative variance. It runs
//! when a loss or an objective is not finite, and before a checkpoint replaces the last good one.

use crate::base::Result;
use crate::device::{Engine, Slot};
use crate::method::{Algorithm, Losses, PseudoLabels};
use crate::net::weights::fault_of;

/// A tensor, with its name in checkpoints, or a description if it is not saved.
type Named = (String, Slot<f32>);

/// A text that names the first of `tensors` with a number that it cannot hold, and that number.
/// `None` if there is none.
fn first(dev: &mut dyn Engine, tensors: &[Named]) -> Result<Option<String>> {
    for (name, slot) in tensors {
        let fault = fault_of(name, &dev.read(*slot)?);
        if fault.is_some() {
            return Ok(fault);
        }
    }
    Ok(None)
}

/// The tensor that `of` selects, for every view and number of clusters, described by `what`.
fn of_views(method: &dyn Algorithm, what: &str, of: fn(&PseudoLabels) -> Slot<f32>) -> Vec<Named> {
    let views = method.clustering().map(|clustering| clustering.pseudo()).unwrap_or_default();
    let name = |view: usize, k: usize| format!("{what} of view {}, {k} clusters,", view + 1);
    let each = |(view, all): (usize, &Vec<PseudoLabels>)| {
        all.iter().map(move |p| (name(view, p.scorer.k()), of(p))).collect::<Vec<_>>()
    };
    views.iter().enumerate().flat_map(each).collect()
}

/// Searches a state that is to be saved, or that a k-means began with: the network in the order of
/// a forward pass, the learned classifiers, the centroids, and Adam's moments.
pub fn state(dev: &mut dyn Engine, method: &dyn Algorithm) -> Result<Option<String>> {
    let net = &method.common().net;
    let mut tensors = net.tensors("", net.blocks.weights);
    tensors.extend(net.statistics());
    tensors.extend(method.learned().iter().flat_map(|(name, learned)| learned.tensors(name)));
    tensors.extend(of_views(method, "a centroid", |p| p.scorer.centroids));
    tensors.extend(net.tensors("adam.m.", net.blocks.m));
    tensors.extend(net.tensors("adam.v.", net.blocks.v));
    first(dev, &tensors)
}

/// Searches the tensors that a training step computed its loss with.
///
/// NOTE: when a loss is read, its step has already spoilt all weights. The running statistics tell
/// where in the forward pass it began, because they come from this pass and from nothing after it.
pub fn step(dev: &mut dyn Engine, method: &dyn Algorithm) -> Result<Option<String>> {
    let mut tensors = method.common().net.statistics();
    tensors.extend(of_views(method, "a centroid", |p| p.scorer.centroids));
    tensors.extend(of_views(method, "a class weight", |p| p.weights));
    first(dev, &tensors)
}

/// A text that names the first part of a step's losses that is not finite, as `metrics.jsonl` does,
/// and its value. `None` if all are finite.
pub fn loss(losses: &Losses) -> Option<String> {
    let mut all = losses.parts.iter().copied().chain([("loss", losses.total)]);
    all.find(|(_, loss)| !loss.is_finite()).map(|(name, loss)| format!("{name} is {loss}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Layout;
    use crate::device::cpu::Cpu;
    use crate::method;
    use crate::recipe::Recipe;

    /// Puts `value` into a tensor of a method in which everything is finite, and returns what is
    /// found.
    fn found(
        recipe: Recipe,
        name: &str,
        value: f32,
        find: impl Fn(&mut dyn Engine, &dyn Algorithm) -> Result<Option<String>>,
    ) -> String {
        let small = Recipe {
            size: 32,
            stored: 32,
            batch: 2,
            batch_cluster: 2,
            clusters: 3,
            init_batches: 1,
            ..recipe
        };
        let mut cpu = Cpu::new();
        let dev: &mut dyn Engine = &mut cpu;
        let mut layout = Layout::new(dev.dtype());
        let mut method = method::plan(dev, &mut layout, &small, 1, 4).unwrap();
        method.common_mut().place_images(dev, &mut layout).unwrap();
        dev.reserve(&layout).unwrap();
        method.init(dev).unwrap();
        assert_eq!(find(dev, &*method).unwrap(), None);
        let net = &method.common().net;
        let mut all = [
            net.tensors("", net.blocks.weights),
            net.statistics(),
            net.tensors("adam.v.", net.blocks.v),
        ]
        .concat();
        all.extend(method.learned().iter().flat_map(|(name, learned)| learned.tensors(name)));
        all.extend(of_views(&*method, "a centroid", |p| p.scorer.centroids));
        let (_, slot) = all.into_iter().find(|(tensor, _)| tensor == name).unwrap();
        let mut values = dev.read(slot).unwrap();
        *values.last_mut().unwrap() = value;
        dev.write(slot, &values).unwrap();
        find(dev, &*method).unwrap().unwrap_or_default()
    }

    #[test]
    fn the_tensor_that_is_not_finite_is_named() {
        let minus_one = found(Recipe::picie(), "layer3.0.bn1.running_var", -1.0, state);
        assert_eq!(minus_one, "layer3.0.bn1.running_var holds the negative variance -1");
        let infinite = f32::NEG_INFINITY;
        for name in [
            "layer1.0.conv1.weight",
            "layer3.0.bn1.running_var",
            "fpn.lateral2.bias",
            "adam.v.conv1.weight",
            "a centroid of view 2, 3 clusters,",
        ] {
            assert_eq!(found(Recipe::picie(), name, infinite, state), format!("{name} holds -inf"));
        }
        for name in ["parametric.bias", "adam.m.parametric.weight"] {
            assert_eq!(found(Recipe::mdc(), name, infinite, state), format!("{name} holds -inf"));
        }
        // A tensor that the step itself has spoilt does not explain its loss.
        assert_eq!(found(Recipe::picie(), "conv1.weight", infinite, step), "");
        let mean = found(Recipe::picie(), "bn1.running_mean", infinite, step);
        assert_eq!(mean, "bn1.running_mean holds -inf");
    }

    #[test]
    fn the_part_of_the_loss_is_named() {
        let losses = |parts| Losses { total: f64::NAN, parts };
        assert_eq!(
            loss(&losses(vec![("within", 1.0), ("cross", f64::INFINITY)])).unwrap(),
            "cross is inf"
        );
        assert_eq!(loss(&losses(vec![])).unwrap(), "loss is NaN");
        assert_eq!(loss(&Losses { total: 1.0, parts: vec![] }), None);
    }
}
