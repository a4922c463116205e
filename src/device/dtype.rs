//! How activations are stored: a value that an engine is opened with, not a type.

use bytemuck::{cast_slice, pod_collect_to_vec};
use half::{bf16, f16};

/// The element type of activations, and of the weights that convolutions read. Masters of the
/// weights, statistics, centroids, sums and losses are f32 everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    F32,
    Bf16,
    F16,
}

impl Dtype {
    pub const ALL: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

    /// As kernels and flags call it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// What the loss is multiplied by so that the gradients of activations are representable, a
    /// power of two; gradients of parameters are divided by it. A mean over `pixels` makes a
    /// pixel's gradient as small as its inverse.
    pub fn loss_scale(self, pixels: usize) -> f32 {
        match self {
            Dtype::F32 | Dtype::Bf16 => 1.0,
            // A pixel's gradient is then some 2⁻⁶ over the norm of its features, amid f16's
            // 2⁻¹⁴ … 2¹⁶.
            Dtype::F16 => pixels.div_ceil(16).next_power_of_two() as f32,
        }
    }

    /// `x` as it is stored: rounded to nearest, ties to even.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Dtype::F32 => x,
            Dtype::Bf16 => bf16::from_f32(x).to_f32(),
            Dtype::F16 => f16::from_f32(x).to_f32(),
        }
    }

    /// The bytes of `values`, each rounded.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Dtype::F32 => cast_slice(values).to_vec(),
            Dtype::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_ne_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_ne_bytes()).collect(),
        }
    }

    /// The values of what [`Dtype::encode`] gives.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = bytes.as_chunks::<2>().0.iter();
        match self {
            Dtype::F32 => pod_collect_to_vec(bytes),
            Dtype::Bf16 => pairs.map(|&pair| bf16::from_ne_bytes(pair).to_f32()).collect(),
            Dtype::F16 => pairs.map(|&pair| f16::from_ne_bytes(pair).to_f32()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decoded_is_what_was_rounded() {
        let values = [1.0, -0.1, 65504.0, 1e-7, f32::NEG_INFINITY, 3.0 + 1.0 / 1024.0];
        for dtype in Dtype::ALL {
            let bytes = dtype.encode(&values);
            assert_eq!(bytes.len(), values.len() * dtype.bytes());
            assert_eq!(dtype.decode(&bytes), values.map(|x| dtype.round(x)), "{dtype:?}");
        }
        assert_eq!([Dtype::Bf16.round(-0.1), Dtype::F16.round(1e-9)], [-0.100_097_66, 0.0]);
        assert_eq!(Dtype::F16.loss_scale(1600), 128.0);
    }
}
