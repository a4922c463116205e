//! The element type of activations: a value that an engine is opened with, not a type parameter.

use bytemuck::{cast_slice, pod_collect_to_vec};
use half::{bf16, f16};

/// The element type of activations, and of the weights that convolutions read. The weights that
/// Adam updates, statistics, centroids, sums and losses are f32 everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// bfloat16: 16 bits, with the range of f32 and 8 bits of precision.
    Bf16,
    /// IEEE half precision: 16 bits, with a small range and 11 bits of precision.
    F16,
}

impl Dtype {
    /// All element types.
    pub const ALL: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

    /// The name that kernels and command-line flags use.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// The factor, a power of two, that the loss is multiplied by so that gradients of activations
    /// are representable. Gradients of parameters are divided by it again. In a mean over `pixels`
    /// pixels, a pixel's gradient is proportional to 1/`pixels`.
    pub fn loss_scale(self, pixels: usize) -> f32 {
        match self {
            Dtype::F32 | Dtype::Bf16 => 1.0,
            // With this scale a pixel's gradient is about 2⁻⁶ / ‖F‖, F its features: in the middle
            // of f16's range 2⁻¹⁴ … 2¹⁶.
            Dtype::F16 => pixels.div_ceil(16).next_power_of_two() as f32,
        }
    }

    /// The value that is stored for `x`: rounded to nearest, ties to even.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Dtype::F32 => x,
            Dtype::Bf16 => bf16::from_f32(x).to_f32(),
            Dtype::F16 => f16::from_f32(x).to_f32(),
        }
    }

    /// The bytes that are stored for `values`, each rounded to nearest, ties to even.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Dtype::F32 => cast_slice(values).to_vec(),
            Dtype::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_ne_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_ne_bytes()).collect(),
        }
    }

    /// The values that are stored in `bytes`: the inverse of [`Dtype::encode`].
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
        assert_eq!([Dtype::Bf16.round(-0.1), Dtype::F16.round(1e-9)], [-0.100_097_656, 0.0]);
        assert_eq!(Dtype::F16.loss_scale(1600), 128.0);
    }
}
