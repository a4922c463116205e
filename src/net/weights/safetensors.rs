//! The safetensors format: u64 header length, JSON header, then the tensors' bytes, all
//! little-endian.

use std::io::{self, Write};

use ::safetensors::SafeTensors;
use serde_json::{Map, json};

use super::fault::{Fault, Result};
use super::stored::StoredType;
use super::{Data, Tensor, Weights};

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

/// NOTE: the crate's own writer takes metadata as a `HashMap`, whose order changes from run to run;
/// the header is written here so that equal weights are equal bytes.
pub fn write(weights: &Weights, out: &mut dyn Write) -> io::Result<()> {
    // The widest elements first, so that every tensor is aligned; then by name.
    let mut tensors: Vec<_> =
        weights.tensors.iter().map(|(name, t)| (name, t, raw(&t.data))).collect();
    tensors.sort_by_key(|(_, _, (_, width, _))| std::cmp::Reverse(*width));

    let mut header = Map::new();
    if !weights.metadata.is_empty() {
        header.insert("__metadata__".into(), json!(weights.metadata));
    }
    let mut begin = 0;
    for (name, t, (dtype, _, bytes)) in &tensors {
        let end = begin + bytes.len();
        header.insert(
            (*name).clone(),
            json!({"dtype": dtype, "shape": t.shape, "data_offsets": [begin, end]}),
        );
        begin = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    tensors.iter().try_for_each(|(_, _, (_, _, bytes))| out.write_all(bytes))
}

/// Name, width and bytes of the elements; like the rest of the engine, for little-endian machines.
fn raw(data: &Data) -> (&'static str, usize, &[u8]) {
    match data {
        Data::F32(v) => ("F32", 4, bytemuck::cast_slice(v)),
        Data::I64(v) => ("I64", 8, bytemuck::cast_slice(v)),
        Data::U16(v) => ("U16", 2, bytemuck::cast_slice(v)),
        Data::U8(v) => ("U8", 1, v),
    }
}
