//! Tensors on a device that a file is written from. They come to the host one after the other, so
//! that saving takes next to no memory beside the plan.

use std::collections::BTreeMap;
use std::io::{Error as IoError, Result as IoResult, Write};
use std::path::Path;

use crate::base::Result;
use crate::base::fs::write_atomic;
use crate::device::{Engine, Slot};
use crate::net::torch_order::to_torch;
use crate::net::weights::{Data, Element, Head, Tensor, write_tensors};

/// Elements of labels that are copied at a time: those of all images may be gigabytes.
const PIECE: usize = 1 << 20;

/// A tensor on the device that goes into a file.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file, in PyTorch's axis order.
    pub shape: Vec<usize>,
    place: Place,
}

/// Where the elements of a tensor lie, and what they are.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Numbers; those of a convolution lie as the engine reads them.
    Floats(Slot<f32>),
    Labels(Slot<u16>),
    /// Numbers of pixels, which a file has as i64.
    Counts(Slot<u32>),
}

impl Saved {
    /// A tensor of numbers, or the weights of a convolution.
    pub fn floats(name: String, shape: Vec<usize>, slot: Slot<f32>) -> Self {
        Saved { name, shape, place: Place::Floats(slot) }
    }

    /// A tensor of labels.
    pub fn labels(name: String, shape: Vec<usize>, slot: Slot<u16>) -> Self {
        Saved { name, shape, place: Place::Labels(slot) }
    }

    /// A vector of counts.
    pub fn counts(name: String, slot: Slot<u32>) -> Self {
        Saved { name, shape: vec![slot.len], place: Place::Counts(slot) }
    }

    /// Copies the tensor to the host.
    pub fn read(&self, dev: &mut dyn Engine) -> Result<Tensor> {
        let data = match self.place {
            Place::Floats(slot) => Data::F32(to_torch(&dev.read(slot)?, &self.shape)),
            Place::Labels(slot) => Data::U16(dev.read(slot)?),
            Place::Counts(slot) => Data::I64(dev.read(slot)?.into_iter().map(i64::from).collect()),
        };
        Ok(Tensor { shape: self.shape.clone(), data })
    }

    /// Writes the elements to `out`.
    fn write(&self, dev: &mut dyn Engine, out: &mut dyn Write) -> IoResult<()> {
        let Place::Labels(slot) = self.place else {
            return out.write_all(self.read(dev).map_err(IoError::other)?.data.bytes());
        };
        for start in (0..slot.len).step_by(PIECE) {
            let piece = dev.read(slot.part(start, PIECE.min(slot.len - start)));
            out.write_all(bytemuck::cast_slice(&piece.map_err(IoError::other)?))?;
        }
        Ok(())
    }

    fn head(&self) -> Head<'_> {
        let element = match self.place {
            Place::Floats(_) => Element::F32,
            Place::Labels(_) => Element::U16,
            Place::Counts(_) => Element::I64,
        };
        Head { name: &self.name, shape: &self.shape, element }
    }

    /// Whether a tensor of a file is of this shape and element type.
    pub fn takes(&self, tensor: &Tensor) -> bool {
        tensor.shape == self.shape && tensor.data.element() == self.head().element
    }

    /// Bytes of the elements in a file.
    pub fn bytes(&self) -> usize {
        self.head().bytes()
    }

    /// Bytes of host memory that the elements take while they are written: the copy of what lies on
    /// the device, and the one in the file's order.
    pub fn copied(&self) -> usize {
        match self.place {
            Place::Labels(slot) => slot.bytes().min(PIECE * size_of::<u16>()),
            Place::Floats(_) | Place::Counts(_) => 2 * self.bytes(),
        }
    }
}

/// Writes tensors and `metadata` as safetensors, whole or not at all. Equal tensors give equal
/// bytes.
pub fn save(
    path: &Path,
    dev: &mut dyn Engine,
    tensors: &[Saved],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let heads: Vec<Head> = tensors.iter().map(Saved::head).collect();
    write_atomic(path, |out| {
        write_tensors(&heads, metadata, out, &mut |i, out| tensors[i].write(dev, out))
    })
}
