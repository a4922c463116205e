//! Convolutions. cuDNN's kernels are not picie's: they take what was measured on such a GPU before,
//! or else what they reach is assumed, by the sizes that decide it, from what such engines usually
//! reach.

use std::fmt;

use crate::base::Result;
use crate::device::cuda::Task;
use crate::device::ops::conv::ConvOps;
use crate::device::ops::{
    ConvBackwardData, ConvBackwardWeight, ConvForward, ConvSpec, ConvUse, Passed,
};
use crate::device::paper::Paper;
use crate::device::paper::gpu::TENSOR;
use crate::device::paper::launch::{Launch, Warps};
use crate::device::paper::norm::{ROW, warps};

/// The three products of a convolution.
#[derive(Clone, Copy)]
enum Product {
    Forward,
    BackwardData,
    BackwardWeight,
}

/// How many launches of convolutions a prediction has of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Convolutions {
    /// Those whose time was measured.
    measured: usize,
    /// Those whose time is assumed.
    assumed: usize,
}

impl fmt::Display for Convolutions {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Convolutions { measured, assumed } = *self;
        if measured > 0 {
            write!(f, "{measured} convolutions take the times of the cuDNN engines that were ")?;
            write!(f, "measured on such a GPU, {assumed} were not measured; ")?;
        }
        if assumed > 0 {
            f.write_str(ASSUMED)?;
        }
        Ok(())
    }
}

/// The assumption, for people who read predictions.
const ASSUMED: &str = "convolutions are assumed to reach 35 to 63 % of 790 TFLOP/s forward, 31 to \
                       57 % for the gradient of the input, 32 to 51 % for that of the weights; \
                       first layers that are cuDNN's 25, and 16 for their weights";

/// Instructions of a warp for 16 pixels of an image's convolution with 32 kernels, and for two taps
/// of each row of its gradient; copies and what stands around them are spread over the pixels.
const IMAGE: Warps = Warps { mma: 56.0, ..warps(184.0, 38.0, 52.0, 67.0) };
const IMAGE_WEIGHT: Warps = Warps { mma: 28.0, ..warps(84.0, 36.0, 22.0, 37.0) };

/// The share of [`TENSOR`] that cuDNN is assumed to reach.
fn reached(spec: &ConvSpec, product: Product) -> f64 {
    let of = |shares: [f64; 3]| shares[product as usize];
    if spec.r == 1 {
        return 0.35;
    }
    // The stem, whose few channels leave most of a tile empty.
    if spec.c <= 8 {
        return of([0.25, 0.25, 0.16]);
    }
    let by_width = match spec.k {
        0..128 => of([0.45, 0.40, 0.32]),
        128..256 => of([0.57, 0.51, 0.44]),
        256..512 => of([0.63, 0.57, 0.51]),
        _ => of([0.60, 0.54, 0.50]),
    };
    by_width * if spec.stride == 1 { 1.0 } else { of([0.85, 0.60, 0.80]) }
}

impl Paper {
    /// What the times of convolutions rest on.
    pub fn convolutions(&self) -> String {
        self.convolutions.to_string()
    }

    /// Whether a convolution of images takes kernels of picie's own.
    fn has_own_kernel(&self, spec: &ConvSpec) -> bool {
        spec.reads_images() && self.act() == 2.0
    }

    fn convolve(
        &mut self,
        spec: &ConvSpec,
        (product, task): (Product, Task),
        kernel: &'static str,
        more: f64,
    ) -> Result<()> {
        let measured = self.times.as_ref().and_then(|t| t.seconds(*spec, task, self.gpu.copy));
        if let Some(seconds) = measured {
            self.convolutions.measured += 1;
            return self.spend(kernel, seconds, "as measured");
        }
        self.convolutions.assumed += 1;
        let act = self.act();
        // What no window covers has a gradient of 0, which is written, too.
        let x = match product {
            Product::BackwardData if more == 0.0 => spec.x_len(),
            _ => spec.x_covered(),
        };
        let moved = x + spec.y_len() + spec.w_len();
        let bytes = act * moved as f64 + more;
        let products = spec.flops() / (reached(spec, product) * TENSOR);
        let memory = bytes / (0.85 * self.gpu.copy);
        let bound = if products > memory { "tensor cores" } else { "memory" };
        self.spend(kernel, products.max(memory), bound)
    }
}

impl ConvOps for Paper {
    fn plan_conv(&mut self, _: ConvUse) -> Result<usize> {
        Ok(0)
    }

    fn conv_forward(&mut self, a: Passed<ConvForward>) -> Result<()> {
        let residual = a.epilogue.residual.map_or(0, |r| r.bytes()) as f64;
        let ConvUse { spec, uses } = *a.spec();
        if self.has_own_kernel(&spec) && !uses.forward.residual {
            // A warp has 16 pixels and half of the kernels.
            let tiles = (spec.n * spec.p() * spec.q().div_ceil(16) * 2) as f64;
            let bytes = self.act() * (spec.x_len() + spec.y_len() + spec.w_len()) as f64;
            let launch = Launch::streams("conv_image", IMAGE * tiles, bytes);
            return self.launch(Launch { factor: 1.3, ..launch });
        }
        let what = (Product::Forward, Task::Forward(uses.forward));
        self.convolve(&spec, what, "cuDNN forward", residual)
    }

    fn conv_backward_data(&mut self, a: Passed<ConvBackwardData>) -> Result<()> {
        let spec = a.spec().spec;
        let read = if a.accumulate { self.act() * spec.x_covered() as f64 } else { 0.0 };
        let what = (Product::BackwardData, Task::BackwardData { accumulate: a.accumulate });
        self.convolve(&spec, what, "cuDNN dgrad", read)
    }

    fn conv_backward_weight(&mut self, a: Passed<ConvBackwardWeight>) -> Result<()> {
        let spec = a.spec().spec;
        let weights = spec.w_len() as f64;
        if self.has_own_kernel(&spec) {
            let tiles = (spec.n * spec.p() * spec.q().div_ceil(16) * 4) as f64;
            let bytes = self.act() * (spec.x_len() + spec.y_len()) as f64;
            let launch = Launch::streams("conv_image_weight", IMAGE_WEIGHT * tiles, bytes);
            self.launch(Launch { factor: 1.3, ..launch })?;
            // Sums of 384 blocks.
            let partial = 384.0 * 4.0 * weights;
            let launch = Launch::streams("conv_sum", Warps::default(), partial);
            self.launch(Launch { latency: 8e-6, ..launch })?;
        } else {
            let what = (Product::BackwardWeight, Task::BackwardWeight);
            self.convolve(&spec, what, "cuDNN wgrad", 0.0)?;
            // cuDNN's result is added to what is there.
            let instructions = warps(30.0, 10.0, 4.0, 12.0) * (weights / 256.0);
            let bytes = weights * (8.0 + self.act());
            self.launch(Launch::streams("conv_add_weight", instructions, bytes))?;
        }
        if a.db.is_some() {
            let dy = a.dy.bytes() as f64;
            let instructions = warps(32.8, 19.2, 12.4, 4.0) * (dy / ROW);
            let launch = Launch::streams("conv_bias_partial", instructions, dy);
            self.launch(Launch { l2: 0.0, ..launch })?;
            self.launch(Launch::waits("conv_sum", 5e-6))?;
        }
        Ok(())
    }
}
