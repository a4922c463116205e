//! Times of convolutions that were measured on a GPU before, for those who predict.

use std::collections::BTreeMap;
use std::path::Path;

use cudarc::cudnn::sys::cudnnDataType_t as Data;

use super::cache::{self, Entry};
use super::ways::{Ask, Task};
use super::{name_of, shape_of};
use crate::device::Dtype;
use crate::device::ops::ConvSpec;

/// Microseconds of cuDNN's engines on one GPU, by problem, and by the newest cuDNN that was there.
pub struct EngineTimes {
    data: Data,
    microseconds: BTreeMap<String, f32>,
}

impl EngineTimes {
    /// What a file of chosen engines has of GPUs in whose names `gpu` occurs, for activations of
    /// this type. Nothing, if there is no such file or it is damaged.
    pub fn read(file: &Path, gpu: &str, dtype: Dtype) -> Self {
        let entries = cache::read(file).unwrap_or_default();
        let mut versions: BTreeMap<usize, BTreeMap<String, f32>> = BTreeMap::new();
        for (key, Entry { microseconds, .. }) in entries {
            // As `Handle::key` writes it.
            let Some((head, problem)) = key.split_once(": ") else { continue };
            let Some((version, name)) = head.split_once(", ") else { continue };
            let version = version.strip_prefix("cuDNN ").and_then(|v| v.parse().ok());
            if let (Some(version), Some(us), true) = (version, microseconds, name.contains(gpu)) {
                versions.entry(version).or_default().insert(problem.into(), us);
            }
        }
        let newest = versions.pop_last().map(|(_, times)| times).unwrap_or_default();
        EngineTimes { data: dtype.into(), microseconds: newest }
    }

    /// Seconds of a convolution, with the pass of picie's own that may follow it, done in the way
    /// that takes least; `bandwidth` is the memory's, in bytes per second. Of a gradient of weights
    /// without that pass, which is an op's kernel of its own. `None`: it was not measured.
    pub fn seconds(&self, spec: ConvSpec, task: Task, bandwidth: f64) -> Option<f64> {
        let ask = Ask { spec, task, data: self.data };
        let (shape, data) = (shape_of(spec), name_of(self.data));
        let costs = ask.ways().into_iter().filter_map(|way| {
            let problem = format!("{} of {shape} in {data}", way.operation);
            let convolution = *self.microseconds.get(&problem)?;
            match task {
                Task::BackwardWeight => Some(f64::from(convolution)),
                _ => Some(way.cost(convolution, bandwidth / 1e6)),
            }
        });
        costs.min_by(f64::total_cmp).map(|microseconds| microseconds / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ops::Terms;

    const SPEC: ConvSpec = ConvSpec { n: 2, h: 8, w: 8, c: 16, k: 32, r: 3, stride: 1, pad: 1 };

    fn times(entries: &[(&str, f32)], dtype: Dtype) -> EngineTimes {
        let shape = shape_of(SPEC);
        let entries: BTreeMap<String, Entry> = entries
            .iter()
            .map(|(key, us)| {
                let entry = Entry { microseconds: Some(*us), ..Entry::default() };
                (key.replace("SHAPE", &shape), entry)
            })
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        serde_json::to_writer(&file, &entries).unwrap();
        EngineTimes::read(file.path(), "H200", dtype)
    }

    #[test]
    fn the_newest_cudnn_on_that_gpu_is_believed() {
        let times = times(
            &[
                ("cuDNN 91000, NVIDIA H200: forward of SHAPE in bf16", 9.0),
                ("cuDNN 91200, NVIDIA H200: forward of SHAPE in bf16", 7.0),
                ("cuDNN 91300, NVIDIA H100: forward of SHAPE in bf16", 5.0),
                ("cuDNN 91200, NVIDIA H200: forward of SHAPE in f16", 3.0),
                ("cuDNN 91200, NVIDIA H200: forward of SHAPE in bf16, deterministic", 1.0),
            ],
            Dtype::Bf16,
        );
        let seconds = |spec, terms| times.seconds(spec, Task::Forward(terms), 1e12);
        assert_eq!(seconds(SPEC, Terms::NONE), Some(7e-6));
        assert_eq!(seconds(ConvSpec { n: 3, ..SPEC }, Terms::NONE), None);
        // By a convolution and a pass: 2·2·8·8·32 bytes of 16 bits at 0.8 TB/s, and a launch.
        let bias = seconds(SPEC, Terms::BIAS).unwrap();
        assert!((bias - (7e-6 + 2e-6 + 16384.0 / 0.8e12)).abs() <= 1e-12, "{bias}");
    }

    #[test]
    fn the_pass_behind_a_gradient_of_weights_is_not_counted() {
        let key = "cuDNN 91200, NVIDIA H200: weight gradient of SHAPE in f16";
        let times = times(&[(key, 4.0)], Dtype::F16);
        assert_eq!(times.seconds(SPEC, Task::BackwardWeight, 1e12), Some(4e-6));
    }
}
