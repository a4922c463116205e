//! What a pickle may build, and the allow list of the Python objects it may name.
//!
//! Nothing is ever called: each allowed name stands for a rule in [`build`] that makes plain data
//! from its arguments.

use super::fault::{Fault, Result};
use super::stored::StoredType;

/// A value on the unpickler's stack. Containers live in [`Heap`], so that copies are cheap, sharing
/// and cycles are harmless, and nothing recurses when a hostile nest of containers is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
    /// Byte strings: no part of a checkpoint that is read needs one.
    Bytes,
    Global(Global),
    Object(usize),
}

#[derive(Debug, PartialEq)]
pub enum Object<'a> {
    /// list, tuple, set
    Sequence(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// `argparse.Namespace`
    Namespace(Vec<(Value<'a>, Value<'a>)>),
    Storage(Storage<'a>),
    Tensor(Strided<'a>),
}

/// A run of elements that the file keeps under `key`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Storage<'a> {
    pub key: &'a str,
    pub dtype: StoredType,
    /// Elements of the whole storage in the file.
    pub len: u64,
    /// First element of this view of it; only files before PyTorch 0.4 use views.
    pub base: u64,
}

/// A strided tensor over a storage; offset and strides in elements of `dtype`.
#[derive(Debug, PartialEq)]
pub struct Strided<'a> {
    pub storage: Storage<'a>,
    pub dtype: StoredType,
    pub offset: u64,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Global {
    Storage(StoredType),
    Dtype(StoredType),
    /// `_rebuild_tensor`, `_rebuild_tensor_v2`: (storage, offset, size, stride, …)
    RebuildTensor,
    /// `_rebuild_tensor_v3`: the same with the dtype as seventh argument
    RebuildTensorV3,
    /// `_rebuild_parameter` and `Parameter` itself: (tensor, …)
    Parameter,
    Dict,
    Sequence,
    Namespace,
}

impl Global {
    /// The allow list.
    pub fn named(module: &str, name: &str) -> Result<Self> {
        let allowed = match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
                Some(Global::RebuildTensor)
            }
            ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensorV3),
            ("torch._utils", "_rebuild_parameter") | ("torch.nn.parameter", "Parameter") => {
                Some(Global::Parameter)
            }
            ("collections", "OrderedDict" | "defaultdict")
            | ("builtins" | "__builtin__", "dict") => Some(Global::Dict),
            ("builtins" | "__builtin__", "set" | "frozenset") | ("torch", "Size" | "device") => {
                Some(Global::Sequence)
            }
            ("argparse", "Namespace") => Some(Global::Namespace),
            ("torch.storage", "UntypedStorage") => Some(Global::Storage(StoredType::U8)),
            ("torch" | "torch.cuda", _) => StoredType::of_storage(name)
                .map(Global::Storage)
                .or_else(|| StoredType::of_torch(name).map(Global::Dtype)),
            _ => None,
        };
        allowed.ok_or_else(|| Fault::Forbidden(format!("{module}.{name}")))
    }
}

/// No layer of a network has more axes.
const MAX_AXES: usize = 8;
/// Values that may be copied from one container to another, which is all that could grow faster
/// than the pickle.
const MAX_COPIES: usize = 1 << 20;

/// The containers of one pickle.
#[derive(Debug, Default)]
pub struct Heap<'a> {
    objects: Vec<Object<'a>>,
    copies: usize,
}

impl<'a> Heap<'a> {
    pub fn put(&mut self, object: Object<'a>) -> Value<'a> {
        self.objects.push(object);
        Value::Object(self.objects.len() - 1)
    }

    pub fn get(&self, value: Value) -> Option<&Object<'a>> {
        let Value::Object(i) = value else { return None };
        self.objects.get(i)
    }

    pub fn get_mut(&mut self, value: Value) -> Option<&mut Object<'a>> {
        let Value::Object(i) = value else { return None };
        self.objects.get_mut(i)
    }

    pub fn sequence(&self, value: Value) -> Result<&[Value<'a>]> {
        match self.get(value) {
            Some(Object::Sequence(items)) => Ok(items),
            _ => Err(Fault::damaged("the pickle has something else where a tuple or list belongs")),
        }
    }

    pub fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(s) => Some(s),
            _ => None,
        })
    }

    /// The pairs of a dict, or of the list of pairs that Python 2 makes an OrderedDict from.
    pub fn copy_pairs(&mut self, value: Value) -> Result<Vec<(Value<'a>, Value<'a>)>> {
        let pairs = match self.get(value) {
            Some(Object::Dict(pairs)) => pairs.clone(),
            _ => {
                let pair = |&p: &Value| match self.sequence(p)? {
                    &[k, v] => Ok((k, v)),
                    _ => Err(Fault::damaged("a dict's item is not a pair")),
                };
                self.sequence(value)?.iter().map(pair).collect::<Result<_>>()?
            }
        };
        self.copies += pairs.len();
        if self.copies > MAX_COPIES {
            return Err(Fault::damaged("the pickle copies its containers without end"));
        }
        Ok(pairs)
    }

    fn sizes(&self, value: Value) -> Result<Vec<usize>> {
        let sizes = self.sequence(value)?;
        if sizes.len() > MAX_AXES {
            return Err(Fault::damaged(format!("a tensor has {} axes", sizes.len())));
        }
        sizes.iter().map(|&v| natural(v).map(|n| n as usize)).collect()
    }
}

/// What a call or construction of `callable` with `args` stands for.
pub fn build<'a>(heap: &mut Heap<'a>, callable: Value<'a>, args: Value<'a>) -> Result<Value<'a>> {
    let Value::Global(global) = callable else {
        return Err(Fault::damaged("the pickle calls something that is no Python object"));
    };
    let items = heap.sequence(args)?;
    let object = match (global, items) {
        (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
            Object::Tensor(view(heap, storage, offset, shape, strides)?)
        }
        (Global::RebuildTensorV3, &[storage, offset, shape, strides, _, _, dtype, ..]) => {
            let Value::Global(Global::Dtype(dtype)) = dtype else {
                return Err(Fault::damaged("a tensor's element type is none"));
            };
            Object::Tensor(Strided { dtype, ..view(heap, storage, offset, shape, strides)? })
        }
        (Global::Parameter, &[data, ..]) => return Ok(data),
        (Global::Namespace, []) => Object::Namespace(Vec::new()),
        // OrderedDict() in Python 3, OrderedDict([[key, value], …]) in Python 2, defaultdict(dict).
        (Global::Dict, [] | [Value::Global(_)]) => Object::Dict(Vec::new()),
        (Global::Dict, &[pairs]) => Object::Dict(heap.copy_pairs(pairs)?),
        // set([…]) and torch.Size((…)) wrap one sequence; torch.device("cuda", 0) does not.
        (Global::Sequence, &[inner]) if heap.sequence(inner).is_ok() => return Ok(inner),
        (Global::Sequence, _) => return Ok(args),
        _ => {
            return Err(Fault::damaged(format!(
                "{global:?} has {} arguments in the pickle",
                items.len()
            )));
        }
    };
    Ok(heap.put(object))
}

fn view<'a>(
    heap: &Heap<'a>,
    storage: Value,
    offset: Value,
    shape: Value,
    strides: Value,
) -> Result<Strided<'a>> {
    let Some(&Object::Storage(storage)) = heap.get(storage) else {
        return Err(Fault::damaged("a tensor has no storage"));
    };
    let (shape, strides) = (heap.sizes(shape)?, heap.sizes(strides)?);
    if shape.len() != strides.len() {
        return Err(Fault::damaged(format!(
            "a tensor has sizes {shape:?} and strides {strides:?}"
        )));
    }
    Ok(Strided { storage, dtype: storage.dtype, offset: natural(offset)?, shape, strides })
}

/// The storage that a persistent id names: ("storage", class, key, device, elements[, view]).
pub fn storage<'a>(heap: &mut Heap<'a>, id: Value) -> Result<Value<'a>> {
    let &[
        Value::Str("storage"),
        Value::Global(Global::Storage(dtype)),
        Value::Str(key),
        _,
        len,
        ref rest @ ..,
    ] = heap.sequence(id)?
    else {
        return Err(Fault::damaged("a storage's description is not one of PyTorch's"));
    };
    // The view, of old files only: (key, offset, elements), or None for all of the storage.
    let base = match rest.first() {
        Some(&view @ Value::Object(_)) => match heap.sequence(view)? {
            &[_, offset, _] => natural(offset)?,
            _ => return Err(Fault::damaged("a view of a storage is not one of PyTorch's")),
        },
        _ => 0,
    };
    let storage = Storage { key, dtype, len: natural(len)?, base };
    Ok(heap.put(Object::Storage(storage)))
}

/// A size or offset: at least 0, and small enough that sums of a few of them cannot overflow.
fn natural(value: Value) -> Result<u64> {
    match value {
        Value::Int(n @ 0..0x1_0000_0000_0000) => Ok(n as u64),
        _ => Err(Fault::damaged(format!("{value:?} is no size"))),
    }
}
