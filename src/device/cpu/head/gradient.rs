//! From the gradient of F̂ down to that of the laterals.

use super::scores::BLOCK;
use super::{Images, Room, merge, normalise};

/// Cuts four maps of `n` images into the parts of each image.
pub fn by_image(
    n: usize,
    mut maps: [&mut [f32]; 4],
) -> impl Iterator<Item = [&mut [f32]; 4]> + Send {
    let lens = maps.each_ref().map(|map| map.len() / n);
    (0..n).map(move |_| {
        std::array::from_fn(|l| maps[l].split_off_mut(..lens[l]).expect("n parts of a map"))
    })
}

impl Images<'_> {
    /// Goes through image `i` a block of pixels after the other: `each(first pixel, F̂ (rows, d),
    /// gradient (rows, d))` writes the gradient of F̂. Leaves F̂ (h, w, d) in the room's features,
    /// and the gradient of p2 … p5 in `dlaterals`.
    pub fn sweep(
        &self,
        i: usize,
        dlaterals: [&mut [f32]; 4],
        room: &mut Room,
        mut each: impl FnMut(usize, &[f32], &mut [f32]),
    ) {
        let (simd, spec, image) = (self.simd, self.spec, self.get(i));
        let Room { features, merge: room, inverse } = room;
        merge::forward(simd, spec, features, &image, room);
        // Without a warp the gradient of F is that of p2; with one, the merge's room is free again
        // to hold it.
        let gradient =
            if image.crop.is_some() { &mut room[..features.len()] } else { &mut *dlaterals[0] };
        let block = BLOCK * spec.d;
        for (b, (f, g)) in features.chunks_mut(block).zip(gradient.chunks_mut(block)).enumerate() {
            let inverse = &mut inverse[..f.len() / spec.d];
            normalise::forward(simd, spec, f, inverse);
            each(b * BLOCK, f, g);
            normalise::backward(simd, spec, g, f, inverse);
        }
        let warped = image.crop.map(|crop| (crop, &room[..features.len()]));
        merge::backward(simd, spec, dlaterals, warped);
    }
}
