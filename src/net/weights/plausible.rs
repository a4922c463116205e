//! Whether weights can be what they claim: every value a number, and a first layer that was trained
//! on the pixels it will see.

use std::path::Path;

use super::{Tensor, Weights};
use crate::base::{Error, Result};

/// What is wrong with the values of the tensor `name`: one is not finite, or is a variance below
/// zero (that of a batch norm, or Adam's second moments). `None`: nothing.
pub fn fault_of(name: &str, values: &[f32]) -> Option<String> {
    let variance = name.ends_with("running_var") || name.starts_with("adam.v.");
    let wrong = values.iter().find(|v| !v.is_finite() || variance && **v < 0.0)?;
    let what = if wrong.is_finite() { "the negative variance " } else { "" };
    Some(format!("{name} holds {what}{wrong}"))
}

/// Errors: a tensor with a value that it cannot have, as [`fault_of`] says.
pub fn finite(weights: &Weights, path: &Path) -> Result<()> {
    let fault = |(name, tensor): (&String, &Tensor)| fault_of(name, tensor.f32()?);
    let remedy = "its training had failed: use an earlier checkpoint or other weights";
    match weights.tensors.iter().find_map(fault) {
        Some(what) => Err(Error::file(path, what, remedy)),
        None => Ok(()),
    }
}

/// Correlation of two pixels of a photograph at a distance of d pixels: exp(−d/15). With it the
/// prediction below meets the variances of an ImageNet ResNet-18 within a tenth, over all channels.
const REACH: f64 = 15.0;
/// Variance of a pixel in torchvision's units, and correlations of its channels R-G or G-B, and
/// R-B.
const VARIANCE: f64 = 1.1;
const NEAR: f64 = 0.93;
const FAR: f64 = 0.82;

/// What is odd about the statistics of `bn1`, beside those that `conv1` has on photographs in
/// torchvision's units (RGB/255, less the mean of ImageNet, over its deviation): the input has mean
/// 0 and the covariance above, so the output of a filter w has mean 0 and variance wᵀΣw. None:
/// nothing, or there is no such pair of layers.
pub fn input(weights: &Weights, path: &Path) -> Option<String> {
    let floats = |name: &str| weights.tensors.get(name).and_then(Tensor::f32);
    let (w, mean, var) =
        (floats("conv1.weight")?, floats("bn1.running_mean")?, floats("bn1.running_var")?);
    let &[k, 3, side, _] = weights.tensors["conv1.weight"].shape.as_slice() else { return None };
    let (taps, len) = (side * side, w.len() / k);
    let place = |i: usize| ((i % taps / side) as f64, (i % side) as f64, (i / taps) as i32);
    let covariance = |i: usize, j: usize| {
        let ((y, x, c), (v, u, d)) = (place(i), place(j));
        let colour = [1.0, NEAR, FAR][(c - d).unsigned_abs() as usize];
        VARIANCE * colour * (-(y - v).hypot(x - u) / REACH).exp()
    };
    let table: Vec<f64> = (0..len * len).map(|at| covariance(at / len, at % len)).collect();
    let (mut ratio, mut off, mut filters) = (0.0, 0.0, 0.0);
    for ((w, &mean), &var) in w.chunks(len).zip(mean).zip(var) {
        let product = |(row, &a): (&[f64], &f32)| {
            f64::from(a) * row.iter().zip(w).map(|(c, &b)| c * f64::from(b)).sum::<f64>()
        };
        let predicted: f64 = table.chunks(len).zip(w).map(product).sum();
        // A filter that learned nothing says nothing.
        if predicted > 1e-12 && var > 1e-12 {
            ratio += (f64::from(var) / predicted).ln();
            off += f64::from(mean.abs()) / f64::from(var).sqrt();
            filters += 1.0;
        }
    }
    let (times, off) = ((0.5 * ratio / filters).exp(), off / filters);
    let what = if !(1.0 / 3.0..=3.0).contains(&times) {
        format!(
            "bn1 expects pixels about {times:.2} times as large as torchvision's (RGB/255, normalised)"
        )
    } else if off > 0.5 {
        format!(
            "bn1 expects pixels whose mean is not that of torchvision's (off by {off:.1} deviations)"
        )
    } else {
        return None;
    };
    let guess = "weights of a network that reads BGR, or 0 to 255? Convert conv1 and bn1, or use --weights imagenet";
    Some(format!("{}: {what}; {guess}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Architecture;
    use crate::net::weights::Source;

    /// The weights in the binary, with one tensor changed.
    fn changed(name: &str, change: impl Fn(f32) -> f32) -> Weights {
        let mut weights = Source::Imagenet.open(Architecture::RESNET18).unwrap().weights.unwrap();
        let tensor = weights.tensors.get_mut(name).unwrap();
        *tensor = Tensor::from_f32(
            tensor.shape.clone(),
            tensor.f32().unwrap().iter().map(|&v| change(v)).collect(),
        );
        weights
    }

    #[test]
    fn statistics_of_other_pixels_are_named() {
        let odd = |weights: &Weights| input(weights, Path::new("file"));
        assert_eq!(odd(&changed("bn1.bias", |v| v)), None);
        // What Caffe's networks read: 0 to 255, deviations of 58 instead of 1.
        let caffe = odd(&changed("conv1.weight", |v| v / 58.0)).unwrap();
        assert!(caffe.contains("about 5") || caffe.contains("about 6"), "{caffe}");
        let mean = odd(&changed("bn1.running_mean", |v| v + 2.0)).unwrap();
        assert!(mean.contains("mean"), "{mean}");
    }

    #[test]
    fn values_that_are_no_numbers_are_named() {
        let fault = |name, change: fn(f32) -> f32| {
            finite(&changed(name, change), Path::new("file")).unwrap_err().to_string()
        };
        assert!(fault("layer2.0.conv1.weight", |_| f32::NAN).contains("layer2.0.conv1.weight"));
        assert!(fault("layer4.1.bn2.running_mean", |_| f32::INFINITY).contains("inf"));
        assert!(fault("layer3.0.bn1.running_var", |v| -v).contains("negative variance"));
    }
}
