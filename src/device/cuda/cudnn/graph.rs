//! A convolution as cuDNN's operation graph.
//!
//! cuDNN names dimensions (n, c, h, w) and (k, c, r, s) whatever the memory order; strides say that
//! it is NHWC and (k, r, s, c). All arithmetic is f32; what lies between two operations is virtual,
//! f32, and never stored.

use std::fmt;
use std::sync::Arc;

use cudarc::cudnn::sys::cudnnBackendAttributeName_t::{self as Name, *};
use cudarc::cudnn::sys::cudnnBackendAttributeType_t::*;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t::*;
use cudarc::cudnn::sys::cudnnPointwiseMode_t as Pointwise;
use cudarc::cudnn::sys::{cudnnConvolutionMode_t, cudnnDataType_t as Data, cudnnNanPropagation_t};

use super::api::{Answer, Api};
use super::descriptor::Descriptor;
use super::lane::Lane;
use crate::device::ops::{ConvSpec, Terms};

/// A tensor that a caller hands in; its number is its unique id in every graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// x or dx.
    X = 1,
    /// w or dw.
    W = 2,
    /// y or dy.
    Y = 3,
    Bias = 4,
    Residual = 5,
}

/// Ids of tensors that nobody hands in start here.
const VIRTUAL: i64 = 100;

/// What a graph computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// y = relu?(x ∗ w + bias + residual)
    Forward(Terms),
    /// dx = (accumulate: +=) the gradient of x.
    BackwardData { accumulate: bool },
    /// dw = (accumulate: +=) the gradient of w, of type f32 or of the activations'.
    BackwardWeight { accumulate: bool, wide: bool },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let term = |on, text| if on { text } else { "" };
        match *self {
            Operation::Forward(Terms { bias, residual, relu }) => {
                let (bias, residual) = (term(bias, " + bias"), term(residual, " + residual"));
                write!(f, "forward{bias}{residual}{}", term(relu, ", ReLU"))
            }
            Operation::BackwardData { accumulate } => {
                write!(f, "data gradient{}", term(accumulate, ", added"))
            }
            Operation::BackwardWeight { accumulate, wide } => {
                write!(
                    f,
                    "weight gradient{}{}",
                    term(accumulate, ", added"),
                    term(wide, ", in f32")
                )
            }
        }
    }
}

/// What a graph is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    pub spec: ConvSpec,
    pub operation: Operation,
    /// Of activations.
    pub data: Data,
}

/// Bytes of a number.
pub fn size_of_type(data: Data) -> usize {
    if data == Data::CUDNN_DATA_FLOAT { 4 } else { 2 }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} of {}", self.operation, super::shape_of(self.spec))
    }
}

impl Problem {
    /// What is handed in, in the order of an execution's addresses, with lengths in bytes.
    pub fn operands(&self) -> Vec<(Operand, usize)> {
        let act = size_of_type(self.data);
        let (mut w, mut more) = (act, Vec::new());
        match self.operation {
            Operation::Forward(Terms { bias, residual, .. }) => {
                more.extend(bias.then_some((Operand::Bias, act * self.spec.k)));
                more.extend(residual.then_some((Operand::Residual, act * self.spec.y_len())));
            }
            Operation::BackwardWeight { wide, .. } => w = if wide { 4 } else { act },
            Operation::BackwardData { .. } => {}
        }
        let mut all = vec![
            (Operand::X, act * self.spec.x_len()),
            (Operand::W, w * self.spec.w_len()),
            (Operand::Y, act * self.spec.y_len()),
        ];
        all.append(&mut more);
        all
    }

    /// What is written.
    pub fn output(&self) -> Operand {
        match self.operation {
            Operation::Forward(_) => Operand::Y,
            Operation::BackwardData { .. } => Operand::X,
            Operation::BackwardWeight { .. } => Operand::W,
        }
    }
}

/// Dimensions (a, b, h, w) of a tensor stored as (a, h, w, b).
type Dims = [usize; 4];

struct Builder {
    api: &'static Api,
    next: i64,
}

impl Builder {
    fn tensor(&self, id: i64, dims: Dims, data: Data, is_virtual: bool) -> Answer<Arc<Descriptor>> {
        let [_, b, h, w] = dims;
        let int = |v: [usize; 4]| v.map(|v| v as i64);
        Descriptor::build(self.api, CUDNN_BACKEND_TENSOR_DESCRIPTOR, |d| {
            d.set_enum(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, data as u32)?;
            d.set(CUDNN_ATTR_TENSOR_DIMENSIONS, &int(dims))?;
            d.set(CUDNN_ATTR_TENSOR_STRIDES, &int([h * w * b, 1, w * b, b]))?;
            d.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?;
            // Slots are aligned to more; kernels that need 128-bit accesses get what they need.
            d.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16i64])?;
            d.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, &[is_virtual])
        })
    }

    fn fresh(&mut self, dims: Dims) -> Answer<Arc<Descriptor>> {
        self.next += 1;
        self.tensor(self.next, dims, Data::CUDNN_DATA_FLOAT, true)
    }

    fn convolution(&self, spec: ConvSpec) -> Answer<Arc<Descriptor>> {
        let both = |v: usize| [v as i64; 2];
        Descriptor::build(self.api, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, |d| {
            d.set_enum(
                CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
                CUDNN_TYPE_DATA_TYPE,
                Data::CUDNN_DATA_FLOAT as u32,
            )?;
            let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION as u32;
            d.set_enum(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, mode)?;
            d.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2i64])?;
            d.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &both(spec.pad))?;
            d.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &both(spec.pad))?;
            d.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &both(spec.stride))?;
            d.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, &both(1))
        })
    }

    /// y = mode(x, b?), element by element; b may be (1, k, 1, 1).
    fn pointwise(
        &self,
        mode: Pointwise,
        y: &Arc<Descriptor>,
        x: &Arc<Descriptor>,
        b: Option<&Arc<Descriptor>>,
    ) -> Answer<Arc<Descriptor>> {
        let what = Descriptor::build(self.api, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, |d| {
            d.set_enum(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode as u32)?;
            if mode == Pointwise::CUDNN_POINTWISE_RELU_FWD {
                // The default makes NaN 0, and a run that has gone wrong would not say so.
                let keep = cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN as u32;
                d.set_enum(CUDNN_ATTR_POINTWISE_NAN_PROPAGATION, CUDNN_TYPE_NAN_PROPOGATION, keep)?;
            }
            d.set_enum(
                CUDNN_ATTR_POINTWISE_MATH_PREC,
                CUDNN_TYPE_DATA_TYPE,
                Data::CUDNN_DATA_FLOAT as u32,
            )
        })?;
        Descriptor::build(self.api, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, |d| {
            d.set_descriptors(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &[what])?;
            d.set_descriptors(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, std::slice::from_ref(x))?;
            if let Some(b) = b {
                d.set_descriptors(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, std::slice::from_ref(b))?;
            }
            d.set_descriptors(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, std::slice::from_ref(y))
        })
    }
}

/// The attributes of the three convolutions, in one order: convolution, x, w, y, alpha, beta.
const FORWARD: [Name; 6] = [
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
];
const BACKWARD_DATA: [Name; 6] = [
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
];
const BACKWARD_WEIGHT: [Name; 6] = [
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
];

/// The finalized operation graph of `problem`.
pub fn graph(lane: &Lane, problem: &Problem) -> Answer<Arc<Descriptor>> {
    let Problem { spec, operation, data } = *problem;
    let mut g = Builder { api: lane.api(), next: VIRTUAL };
    let (y_dims, bias_dims) = ([spec.n, spec.k, spec.p(), spec.q()], [1, spec.k, 1, 1]);
    let (kind, names, w_data, beta, terms) = match operation {
        Operation::Forward(terms) => {
            (CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, FORWARD, data, false, terms)
        }
        Operation::BackwardData { accumulate } => {
            let kind = CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR;
            (kind, BACKWARD_DATA, data, accumulate, Terms::NONE)
        }
        Operation::BackwardWeight { accumulate, wide } => {
            let kind = CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
            (
                kind,
                BACKWARD_WEIGHT,
                if wide { Data::CUDNN_DATA_FLOAT } else { data },
                accumulate,
                Terms::NONE,
            )
        }
    };
    let x = g.tensor(Operand::X as i64, [spec.n, spec.c, spec.h, spec.w], data, false)?;
    let w = g.tensor(Operand::W as i64, [spec.k, spec.c, spec.r, spec.r], w_data, false)?;
    let y = g.tensor(Operand::Y as i64, y_dims, data, false)?;
    // NOTE: the residual is added before a bias of the activations' type, for cuDNN's precompiled
    // engines know only that chain. With another one a kernel is compiled, for half a second to
    // two.
    let mut chain = Vec::new();
    if terms.residual {
        chain.push((
            Pointwise::CUDNN_POINTWISE_ADD,
            Some(g.tensor(Operand::Residual as i64, y_dims, data, false)?),
        ));
    }
    if terms.bias {
        let bias = g.tensor(Operand::Bias as i64, bias_dims, data, false)?;
        chain.push((Pointwise::CUDNN_POINTWISE_ADD, Some(bias)));
    }
    if terms.relu {
        chain.push((Pointwise::CUDNN_POINTWISE_RELU_FWD, None));
    }
    let convolution = g.convolution(spec)?;
    let mut at = if chain.is_empty() { y.clone() } else { g.fresh(y_dims)? };
    let mut operations = vec![Descriptor::build(g.api, kind, |d| {
        for (name, descriptor) in names.into_iter().zip([&convolution, &x, &w, &at]) {
            d.set_descriptors(name, std::slice::from_ref(descriptor))?;
        }
        d.set(names[4], &[1.0f32])?;
        d.set(names[5], &[f32::from(u8::from(beta))])
    })?];
    for i in 0..chain.len() {
        let to = if i + 1 == chain.len() { y.clone() } else { g.fresh(y_dims)? };
        let (mode, b) = &chain[i];
        operations.push(g.pointwise(*mode, &to, &at, b.as_ref())?);
        at = to;
    }
    Descriptor::build(g.api, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, |d| {
        d.set_handle(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, lane.raw())?;
        d.set_descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS, &operations)
    })
}
