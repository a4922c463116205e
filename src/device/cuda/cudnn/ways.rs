//! What a convolution is asked for, and the ways to do it: by cuDNN alone, or with a pass of
//! `cuda/conv.cu` behind it.
//!
//! * forward: the epilogue within the convolution (not offered everywhere), or a pass over its
//!   output;
//! * dx +=: β = 1 within the convolution, or a gradient in scratch that is added;
//! * dw +=: a gradient in scratch that is added, of the activations' type or of f32; of f32 inputs
//!   β = 1 onto dw itself.
//!
//! A pass costs the bytes that it moves and its launch: a way's cost is the measured time of its
//! convolution, and of its pass [`LAUNCH`] + bytes / ([`REACHED`] × bandwidth).
//!
//! NOTE: of bf16 and f16 inputs cuDNN 9 offers f32 gradients of weights as a last resort, by one
//! engine that does not split the long sum over pixels. Rounding dw once, after an f32 sum, is what
//! its fast engines do, so that way comes first; and β = 1 onto f32 is not asked for: a cuDNN that
//! took it would take that engine.

use std::fmt;

use cudarc::cudnn::sys::cudnnDataType_t as Data;

use super::graph::{Operation, Problem, size_of_type};
use crate::device::ops::{ConvSpec, Terms};

/// Microseconds that a kernel of a recorded step costs whatever it does.
const LAUNCH: f64 = 2.0;
/// What a pass reaches of the bandwidth that the memory's clock and width promise.
const REACHED: f64 = 0.8;

/// One direction of a convolution, as the network uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    Forward(Terms),
    BackwardData { accumulate: bool },
    BackwardWeight,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    pub spec: ConvSpec,
    pub task: Task,
    /// Of activations.
    pub data: Data,
}

/// What does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub operation: Operation,
    /// Bytes that a pass of our own moves. None: there is no pass.
    pub pass: Option<usize>,
}

impl Way {
    /// Microseconds, where the convolution takes `convolution`; `bandwidth` in bytes a microsecond.
    pub fn cost(&self, convolution: f32, bandwidth: f64) -> f64 {
        f64::from(convolution)
            + self.pass.map_or(0.0, |bytes| LAUNCH + bytes as f64 / (REACHED * bandwidth))
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}", self.operation, if self.pass.is_some() { " and a pass" } else { "" })
    }
}

impl Ask {
    /// The ways, in the order in which they are tried where nothing is known of their time.
    pub fn ways(&self) -> Vec<Way> {
        let (act, spec) = (size_of_type(self.data), self.spec);
        let alone = |operation| Way { operation, pass: None };
        let and = |operation, bytes| Way { operation, pass: Some(bytes) };
        match self.task {
            Task::Forward(Terms::NONE) => vec![alone(Operation::Forward(Terms::NONE))],
            // The residual is read either way.
            Task::Forward(terms) => {
                vec![
                    alone(Operation::Forward(terms)),
                    and(Operation::Forward(Terms::NONE), 2 * act * spec.y_len()),
                ]
            }
            Task::BackwardData { accumulate: false } => {
                vec![alone(Operation::BackwardData { accumulate: false })]
            }
            Task::BackwardData { accumulate: true } => vec![
                alone(Operation::BackwardData { accumulate: true }),
                and(Operation::BackwardData { accumulate: false }, 3 * act * spec.x_len()),
            ],
            Task::BackwardWeight => {
                let add = |wide| {
                    let bytes = if wide { 4 } else { act };
                    and(
                        Operation::BackwardWeight { accumulate: false, wide },
                        (8 + bytes) * spec.w_len(),
                    )
                };
                match self.data {
                    Data::CUDNN_DATA_FLOAT => {
                        vec![
                            alone(Operation::BackwardWeight { accumulate: true, wide: true }),
                            add(true),
                        ]
                    }
                    _ => vec![add(false), add(true)],
                }
            }
        }
    }

    /// Whether the first two of its ways that exist are compared by their time; the first is taken
    /// else.
    pub fn compares(&self) -> bool {
        matches!(self.task, Task::Forward(_) | Task::BackwardData { .. }) && self.ways().len() > 1
    }

    pub fn problem(&self, way: Way) -> Problem {
        Problem { spec: self.spec, operation: way.operation, data: self.data }
    }

    /// Whether `other` is the same but for the number of images.
    pub fn is_like(&self, other: &Ask) -> bool {
        let any = |ask: &Ask| Ask { spec: ConvSpec { n: 0, ..ask.spec }, ..*ask };
        any(self) == any(other)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Task::Forward(terms) => Operation::Forward(terms).fmt(f),
            Task::BackwardData { accumulate } => Operation::BackwardData { accumulate }.fmt(f),
            Task::BackwardWeight => f.write_str("weight gradient"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(task: Task, data: Data) -> Vec<String> {
        let spec = ConvSpec { n: 2, h: 8, w: 8, c: 16, k: 32, r: 3, stride: 1, pad: 1 };
        Ask { spec, task, data }.ways().iter().map(Way::to_string).collect()
    }

    #[test]
    fn wide_gradients_are_not_added_to_within_a_convolution_of_narrow_inputs() {
        let narrow = ways(Task::BackwardWeight, Data::CUDNN_DATA_BFLOAT16);
        assert_eq!(narrow, ["weight gradient and a pass", "weight gradient, in f32 and a pass"]);
        assert_eq!(
            ways(Task::BackwardWeight, Data::CUDNN_DATA_FLOAT)[0],
            "weight gradient, added, in f32"
        );
    }

    /// At 1 TB/s, of which 0.8 are reached, a pass over 8 MB takes 10 µs, and its launch 2.
    #[test]
    fn a_way_costs_its_pass_as_well() {
        let operation = Operation::BackwardData { accumulate: false };
        let way = Way { operation, pass: Some(8_000_000) };
        assert_eq!(way.cost(30.0, 1e6), 42.0);
        assert_eq!(Way { pass: None, ..way }.cost(30.0, 1e6), 30.0);
    }
}
