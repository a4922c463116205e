//! The tiles of Winograd F(2×2, 3×3): how they cover the images, and how transformed ones lie in
//! scratch.

use crate::device::ops::ConvSpec;

/// Number of positions in a transformed tile of 4×4.
pub(super) const POINTS: usize = 16;

/// Elements from one point's (tiles, channels) matrix to the next.
///
/// NOTE: a cache line more than the matrix: at a multiple of 4 KiB all 16 would fall into one set
/// of the first-level cache.
pub(super) fn plane(tiles: usize, channels: usize) -> usize {
    tiles * channels + 16
}

/// The grid of output tiles of 2×2 that covers the images of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub spec: ConvSpec,
}

impl Grid {
    /// Number of tiles in a row.
    pub fn across(&self) -> usize {
        self.spec.w.div_ceil(2)
    }

    /// Number of rows of tiles in an image.
    pub fn down(&self) -> usize {
        self.spec.h.div_ceil(2)
    }

    /// Number of rows of tiles over all images.
    pub fn rows(&self) -> usize {
        self.spec.n * self.down()
    }

    /// The first row of pixels, counted over all images, of a row of tiles.
    pub fn first_row(&self, tile_row: usize) -> usize {
        tile_row / self.down() * self.spec.h + tile_row % self.down() * 2
    }
}
