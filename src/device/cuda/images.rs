//! The kernels, as `build.rs` compiled them.

/// One `cuda/*.cu` compiled for one element type.
pub(super) struct Image {
    /// The file's stem.
    pub stem: &'static str,
    /// The element type of activations.
    pub act: &'static str,
    /// A fatbin; a text that no driver accepts where there was no nvcc.
    pub data: &'static [u8],
}

/// Drivers may read an image in words.
#[repr(C, align(64))]
struct Aligned<T>(T);

include!(concat!(env!("OUT_DIR"), "/images.rs"));
