//! From the objects of a checkpoint's pickle to named, contiguous tensors.

use super::fault::{Fault, Result};
use super::object::{Heap, Object, Strided, Value};
use super::pickle::Pickle;
use super::{Tensor, Weights, room};

/// Checkpoints nest four deep; lists inside lists inside … are hostile, not deep.
const MAX_DEPTH: usize = 8;
/// Containers and strings may be shared, so a short pickle can spell an endless tree: bytes of all
/// names and text.
const MAX_TEXT: usize = 64 << 20;
/// A tensor with a stride of 0 can be far larger than its file: elements by which all of them may
/// be. A ResNet-50 has 25.6 million.
const MAX_REPEATED: u64 = 1 << 25;
/// Tensors of no more bytes are made without a look at what is free.
const SMALL: u64 = 1 << 16;

/// The bytes of a storage by its key, little-endian.
pub trait Storages {
    fn bytes(&mut self, key: &str) -> Result<&[u8]>;
}

/// Tensors and scalars of a checkpoint under dotted names. A top-level "optimizer" is left out: it
/// is twice the network's size, and nothing can be resumed from another program's optimizer.
pub fn collect(pickle: &Pickle, storages: &mut dyn Storages) -> Result<Weights> {
    let Some(Object::Dict(items)) = pickle.heap.get(pickle.root) else {
        return Err(Fault::unsupported(
            "the checkpoint holds no dict of tensors (a whole pickled model is not read)",
        ));
    };
    let mut walk =
        Walk { heap: &pickle.heap, storages, weights: Weights::default(), text: 0, repeated: 0 };
    for &(key, value) in items.iter().filter(|(key, _)| *key != Value::Str("optimizer")) {
        walk.visit(name("", key)?, value, 1)?;
    }
    Ok(walk.weights)
}

struct Walk<'a, 's> {
    heap: &'a Heap<'a>,
    storages: &'s mut dyn Storages,
    weights: Weights,
    text: usize,
    /// Elements of all tensors so far beyond those of their storages.
    repeated: u64,
}

impl Walk<'_, '_> {
    fn visit(&mut self, path: String, value: Value, depth: usize) -> Result<()> {
        let length = if let Value::Str(s) = value { s.len() } else { 0 };
        self.text += path.len() + 1 + length;
        if depth > MAX_DEPTH || self.text > MAX_TEXT {
            return Err(Fault::unsupported(format!(
                "the checkpoint's containers are too deep or too long at {path:.99?}"
            )));
        }
        let text = match value {
            Value::Bool(b) => b.to_string(),
            Value::Int(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Str(s) => s.to_string(),
            Value::None | Value::Bytes | Value::Global(_) => return Ok(()),
            Value::Object(_) => return self.visit_object(path, value, depth),
        };
        self.weights.metadata.insert(path, text);
        Ok(())
    }

    fn visit_object(&mut self, path: String, value: Value, depth: usize) -> Result<()> {
        let heap = self.heap;
        match heap.get(value) {
            Some(Object::Dict(items) | Object::Namespace(items)) => {
                items.iter().try_for_each(|&(key, v)| self.visit(name(&path, key)?, v, depth + 1))
            }
            Some(Object::Sequence(items)) => items
                .iter()
                .enumerate()
                .try_for_each(|(i, &v)| self.visit(format!("{path}.{i}"), v, depth + 1)),
            Some(Object::Tensor(view)) => {
                let tensor = self.tensor(&path, view)?;
                self.weights.tensors.insert(path, tensor);
                Ok(())
            }
            Some(Object::Storage(_)) | None => Ok(()),
        }
    }

    /// The elements of `view` in row-major order.
    fn tensor(&mut self, path: &str, view: &Strided) -> Result<Tensor> {
        let Strided { dtype, shape, strides, .. } = view;
        let wrong =
            |what: String| Fault::damaged(format!("tensor {path:?} of shape {shape:?} {what}"));
        let count =
            shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64)).unwrap_or(u64::MAX);
        if count == 0 {
            return Ok(Tensor { shape: shape.clone(), data: dtype.decode(&[]) });
        }
        let storage = self.storages.bytes(view.storage.key)?;
        // In bytes; sums and products that would overflow end outside the storage.
        let width = dtype.size();
        let base = (view.storage.base as usize).saturating_mul(view.storage.dtype.size());
        let begin = (view.offset as usize).saturating_mul(width).saturating_add(base);
        let steps = shape.iter().zip(strides);
        let last = steps.fold(0usize, |at, (&d, &s)| at.saturating_add((d - 1).saturating_mul(s)));
        let end = last.saturating_add(1).saturating_mul(width).saturating_add(begin);
        let bytes = storage.get(begin..end).ok_or_else(|| {
            wrong(format!("ends at byte {end} of a storage of {} bytes", storage.len()))
        })?;
        self.repeated =
            self.repeated.saturating_add(count.saturating_sub((storage.len() / width) as u64));
        if self.repeated > MAX_REPEATED {
            return Err(Fault::unsupported(format!(
                "tensor {path:?} of shape {shape:?} repeats a storage of {} bytes (an expanded \
                 tensor)",
                storage.len()
            )));
        }
        // Tensors may share a storage, so that all of them can be far larger than their file.
        let takes = count * dtype.decoded() as u64;
        if takes > SMALL && takes > room() {
            return Err(Fault::Large(room()));
        }
        let data = match is_contiguous(shape, strides) {
            true => dtype.decode(bytes),
            false => dtype.decode(&gather(bytes, shape, strides, width)),
        };
        Ok(Tensor { shape: shape.clone(), data })
    }
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut step = 1;
    shape.iter().zip(strides).rev().all(|(&d, &s)| {
        let fits = d == 1 || s == step;
        step *= d;
        fits
    })
}

/// Elements of `width` bytes in row-major order of `shape`. Every size is at least 1 here.
fn gather(storage: &[u8], shape: &[usize], strides: &[usize], width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(shape.iter().product::<usize>() * width);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    loop {
        out.extend_from_slice(&storage[at * width..(at + 1) * width]);
        // The odometer's next reading; past the first axis everything has been visited.
        let mut axis = shape.len();
        loop {
            let Some(next) = axis.checked_sub(1) else { return out };
            axis = next;
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
}

fn name(path: &str, key: Value) -> Result<String> {
    let key = match key {
        Value::Str(s) => s.to_string(),
        Value::Int(n) => n.to_string(),
        _ => {
            return Err(Fault::unsupported(format!(
                "a dict of the checkpoint has the key {key:?}"
            )));
        }
    };
    Ok(if path.is_empty() { key } else { format!("{path}.{key}") })
}

pub fn big_endian() -> Fault {
    Fault::unsupported("the checkpoint was written on a big-endian machine")
}
