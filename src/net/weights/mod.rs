//! Weights in files: safetensors, and PyTorch checkpoints read by an unpickler that runs no code.
//!
//! ```text
//! read ─ safetensors             our own files, and what others publish
//!      ├ torch_zip ────┐         .pth since PyTorch 1.6
//!      └ torch_legacy ─┤         .pth before: resnet18-5c106cde.pth, the released PiCIE
//!                      ├ pickle  the stack machine
//!                      ├ object  the few Python objects that it may build
//!                      └ torch   storages to contiguous tensors
//! canonical ─ recognise          our names for theirs; whose and which backbone's they are
//! source ─ plausible             what a network starts from, such as the binary's ImageNet weights
//! ```

mod canonical;
mod fault;
mod object;
mod pickle;
mod plausible;
mod recognise;
mod safetensors;
mod source;
mod stored;
mod torch;
mod torch_legacy;
mod torch_zip;

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::fs::write_atomic;
use crate::base::kind::Kind;
use crate::base::{Error, Result, memory};
pub use canonical::{Origin, backbone, canonical};
use fault::Fault;
pub use plausible::fault_of;
pub use safetensors::{Element, Head, write_tensors};
pub use source::{Provenance, Source, Start, Taken};

/// The largest files are checkpoints saved in the middle of an epoch, with two pseudo labels of 2
/// bytes for each feature pixel: 3 GB for all of COCO at 320². A file that wants more than this is
/// refused before memory is spent.
const MAX_BYTES: u64 = 16 << 30;

/// Elements in row-major order. Files in f16, bf16 and f64 arrive as `F32`, signed integers as
/// `I64`, booleans as `U8`.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    I64(Vec<i64>),
    U16(Vec<u16>),
    U8(Vec<u8>),
}

/// A contiguous array with PyTorch's axis order: a convolution's weight is (out, in, height,
/// width).
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
}

impl Data {
    /// What a file calls elements like these.
    pub fn element(&self) -> Element {
        match self {
            Data::F32(_) => Element::F32,
            Data::I64(_) => Element::I64,
            Data::U16(_) => Element::U16,
            Data::U8(_) => Element::U8,
        }
    }

    /// The elements as a file has them; like the rest of the engine, for little-endian machines.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::I64(v) => bytemuck::cast_slice(v),
            Data::U16(v) => bytemuck::cast_slice(v),
            Data::U8(v) => v,
        }
    }
}

impl Tensor {
    pub fn from_f32(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Tensor { shape, data: Data::F32(values) }
    }

    /// The elements of a float tensor.
    pub fn f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            _ => None,
        }
    }
}

/// What one file holds: tensors by name, and text by name (a checkpoint's scalars, safetensors'
/// `__metadata__`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    pub tensors: BTreeMap<String, Tensor>,
    pub metadata: BTreeMap<String, String>,
}

/// Reads a weights file of any format of this module; the content decides which, not the file's
/// name.
///
/// Nested containers of a PyTorch checkpoint become dotted names
/// ("state_dict.module.backbone.conv1.weight", "args.K_train"); its optimizer is left out.
///
/// Errors: an unreadable or damaged file, a pickle that asks for more than tensors and plain
/// containers.
pub fn read(path: &Path) -> Result<Weights> {
    parse(&read_bytes(path)?).map_err(|fault| fault.at(path))
}

/// Bytes that what a file unpacks to may take.
fn room() -> u64 {
    memory::available().map_or(MAX_BYTES, |free| free.min(MAX_BYTES))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if bytes > MAX_BYTES {
        let what = format!("{} MB are too many for a checkpoint", bytes >> 20);
        return Err(Error::file(path, what, "name another file"));
    }
    // The file, and the tensors in it.
    memory::check(path, 2 * bytes)?;
    std::fs::read(path).map_err(|e| Error::io(path, e))
}

/// Writes `weights` as safetensors, whole or not at all. Equal weights give equal bytes.
pub fn write(path: &Path, weights: &Weights) -> Result<()> {
    let heads = weights.tensors.iter().map(|(name, tensor)| Head {
        name,
        shape: &tensor.shape,
        element: tensor.data.element(),
    });
    let (heads, tensors): (Vec<_>, Vec<_>) = (heads.collect(), weights.tensors.values().collect());
    write_atomic(path, |out| {
        write_tensors(&heads, &weights.metadata, out, &mut |i, out| {
            out.write_all(tensors[i].data.bytes())
        })
    })
}

/// [`read`] and [`canonical`] in one.
pub fn load(path: &Path, expected: &[(String, Vec<usize>)]) -> Result<(Weights, Origin)> {
    canonical(read(path)?, path, expected)
}

fn parse(bytes: &[u8]) -> fault::Result<Weights> {
    match bytes {
        [] => Err(Fault::damaged("it is empty")),
        // NOTE: first, because a safetensors file begins with a length, whose bytes may spell
        // either magic below. No header is long enough to need all eight.
        [_, _, _, _, _, 0, 0, 0, b'{', ..] => safetensors::parse(bytes),
        [b'P', b'K', ..] => torch_zip::parse(bytes),
        [0x80, ..] => torch_legacy::parse(bytes),
        _ => Err(Fault::Unknown(Kind::of(bytes))),
    }
}
