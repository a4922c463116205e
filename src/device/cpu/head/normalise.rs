//! Features as unit vectors: F̂ = F/max(‖F‖₂, ε) pixel by pixel, and its gradient (torch's
//! `F.normalize`). A head whose features are not `unit` leaves them as they are.

use crate::device::cpu::vector::dot;
use crate::device::cpu::wide::wide;
use crate::device::ops::HeadSpec;

const EPS: f32 = 1e-12;

/// Normalises each row of `features` (rows, d) in place; inverse (rows) = 1/max(‖F‖, ε).
pub fn forward(simd: pulp::Arch, spec: &HeadSpec, features: &mut [f32], inverse: &mut [f32]) {
    if !spec.unit {
        return;
    }
    let d = spec.d;
    wide(
        simd,
        #[inline(always)]
        || {
            for (f, inverse) in features.chunks_exact_mut(d).zip(inverse.iter_mut()) {
                let norm = dot(f, f).sqrt();
                // NOTE: not f32::max, which would turn a NaN norm into ε.
                *inverse = 1.0 / if norm < EPS { EPS } else { norm };
                for f in f {
                    *f *= *inverse;
                }
            }
        },
    );
}

/// Turns the gradient g of F̂ in `grad` (rows, d) into that of F, (g − F̂·(F̂·g))/‖F‖. A norm that
/// was clamped is a constant: there it is g/ε.
pub fn backward(
    simd: pulp::Arch,
    spec: &HeadSpec,
    grad: &mut [f32],
    features: &[f32],
    inverse: &[f32],
) {
    if !spec.unit {
        return;
    }
    let d = spec.d;
    wide(
        simd,
        #[inline(always)]
        || {
            for ((g, f), &inverse) in
                grad.chunks_exact_mut(d).zip(features.chunks_exact(d)).zip(inverse)
            {
                let along = if inverse >= 1.0 / EPS { 0.0 } else { dot(g, f) };
                for (g, f) in g.iter_mut().zip(f) {
                    *g = (*g - along * f) * inverse;
                }
            }
        },
    );
}
