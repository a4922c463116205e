//! The kernels, as `build.rs` compiled them.

/// One `cuda/*.cu` compiled for one element type.
pub(super) struct Image {
    /// `<stem>.<type>`
    pub name: &'static str,
    /// A fatbin; a text that no driver accepts where there was no nvcc.
    pub data: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/images.rs"));
