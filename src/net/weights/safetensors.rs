//! The safetensors format: u64 header length, JSON header, then the tensors' bytes, all
//! little-endian.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};

pub use ::safetensors::Dtype as Element;
use ::safetensors::SafeTensors;
use serde_json::{Map, json};

use super::fault::{Fault, Result};
use super::stored::StoredType;
use super::{Tensor, Weights};

pub fn parse(bytes: &[u8]) -> Result<Weights> {
    let damaged =
        |e: ::safetensors::SafeTensorError| Fault::damaged(format!("safetensors says {e}"));
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let mut weights = Weights::default();
    weights
        .metadata
        .extend(header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
    for (name, view) in file.tensors() {
        let dtype = StoredType::of_safetensors(view.dtype()).ok_or_else(|| {
            Fault::unsupported(format!("tensor {name:?} has elements of {:?}", view.dtype()))
        })?;
        let tensor = Tensor { shape: view.shape().to_vec(), data: dtype.decode(view.data()) };
        weights.tensors.insert(name, tensor);
    }
    Ok(weights)
}

/// What a file says of a tensor before it has the elements.
pub struct Head<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub element: Element,
}

impl Head<'_> {
    /// Bytes of the elements.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.bitsize() / 8
    }
}

/// Writes the tensors of `heads`. `put` is called once for each, in the order of the file, and
/// writes the elements of the tensor with that number.
///
/// NOTE: the crate's own writer wants all elements in memory, and takes metadata as a `HashMap`,
/// whose order changes from run to run; the header is written here so that equal weights are equal
/// bytes.
pub fn write_tensors(
    heads: &[Head],
    metadata: &BTreeMap<String, String>,
    out: &mut dyn Write,
    put: &mut dyn FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    // The widest elements first, so that every tensor is aligned; then by name.
    let mut order: Vec<usize> = (0..heads.len()).collect();
    order.sort_by_key(|&i| (Reverse(heads[i].element.bitsize()), heads[i].name));

    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut begin = 0;
    for head in order.iter().map(|&i| &heads[i]) {
        let (Head { name, shape, element }, end) = (head, begin + head.bytes());
        let described = json!({"dtype": element, "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.to_string(), described);
        begin = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    order.into_iter().try_for_each(|i| put(i, out))
}
