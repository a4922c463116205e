//! One image's laterals merged to p2's size, then warped, and the gradient of both.

use super::resample::{Samples, Sampling};
use crate::device::ops::{Crop, HeadSpec, Merge};

/// The laterals and the crop of one image.
pub struct Image<'a> {
    /// p2, p3, p4, p5.
    pub laterals: [&'a [f32]; 4],
    /// The window that it is warped by; None where it is not warped.
    pub crop: Option<Crop>,
}

/// f32 of scratch that [`forward`] works in: the map before the warp, and the cascade's sums at the
/// sizes of p3 and p4.
pub fn room_len(spec: &HeadSpec) -> usize {
    let [s2, s3, s4, _] = spec.sizes();
    (s2.0 * s2.1 + s3.0 * s3.1 + s4.0 * s4.1) * spec.d
}

/// How `level` is resampled to the size of `to`.
fn up(spec: &HeadSpec, level: usize, to: usize) -> Sampling {
    Sampling::whole(spec.sizes()[level], spec.sizes()[to], spec.d)
}

/// How the merged map is resampled by a crop.
fn warp(spec: &HeadSpec, crop: Crop) -> Sampling {
    let side = |start: u32, out, flip| Samples {
        start: start as usize,
        len: crop.side as usize,
        out,
        flip,
    };
    Sampling {
        rows: side(crop.top, spec.h, false),
        cols: side(crop.left, spec.w, crop.flip != 0),
        width: spec.w,
        d: spec.d,
    }
}

/// features (h, w, d) = F, not yet normalised. `room` is [`room_len`] long.
pub fn forward(
    simd: pulp::Arch,
    spec: &HeadSpec,
    features: &mut [f32],
    image: &Image,
    room: &mut [f32],
) {
    let (flat, room) = room.split_at_mut(spec.pixels() * spec.d);
    let merged = if image.crop.is_some() { &mut *flat } else { &mut *features };
    let [p2, p3, p4, p5] = image.laterals;
    merged.copy_from_slice(p2);
    match spec.merge {
        Merge::Direct => {
            for level in 1..spec.levels {
                up(spec, level, 0).forward::<true>(simd, merged, image.laterals[level]);
            }
        }
        Merge::Cascade => {
            let (sum3, room) = room.split_at_mut(p3.len());
            let sum4 = &mut room[..p4.len()];
            sum4.copy_from_slice(p4);
            up(spec, 3, 2).forward::<true>(simd, sum4, p5);
            sum3.copy_from_slice(p3);
            up(spec, 2, 1).forward::<true>(simd, sum3, sum4);
            up(spec, 1, 0).forward::<true>(simd, merged, sum3);
        }
    }
    if let Some(crop) = image.crop {
        warp(spec, crop).forward::<false>(simd, features, flat);
    }
}

/// dp2 … dp5 = the gradient of p2 … p5 from that of F, which stands in dp2 already where the image
/// is not warped, else in `warped` beside the crop.
pub fn backward(
    simd: pulp::Arch,
    spec: &HeadSpec,
    [dp2, dp3, dp4, dp5]: [&mut [f32]; 4],
    warped: Option<(Crop, &[f32])>,
) {
    if let Some((crop, dfeatures)) = warped {
        dp2.fill(0.0);
        warp(spec, crop).adjoint(simd, dp2, dfeatures);
    }
    for p in [&mut *dp3, &mut *dp4, &mut *dp5] {
        p.fill(0.0);
    }
    match spec.merge {
        Merge::Direct => {
            for (level, p) in (1..spec.levels).zip([dp3, dp4, dp5]) {
                up(spec, level, 0).adjoint(simd, p, dp2);
            }
        }
        Merge::Cascade => {
            up(spec, 1, 0).adjoint(simd, dp3, dp2);
            up(spec, 2, 1).adjoint(simd, dp4, dp3);
            up(spec, 3, 2).adjoint(simd, dp5, dp4);
        }
    }
}
