//! PyTorch's checkpoint format before 1.6: five pickles (magic number, version, machine, object,
//! keys of the storages), then for each key the number of elements (i64) and the elements.

use std::collections::HashMap;

use super::Weights;
use super::fault::{Fault, Result};
use super::object::{Object, Value};
use super::pickle::{Pickle, load};
use super::torch::{Storages, big_endian, collect};

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const VERSION: i128 = 1001;

pub fn parse(bytes: &[u8]) -> Result<Weights> {
    let mut rest = bytes;
    let mut next = || -> Result<Pickle> {
        let pickle = load(rest)?;
        rest = &rest[pickle.used..];
        Ok(pickle)
    };
    if next()?.root != Value::Int(MAGIC) {
        return Err(Fault::unsupported("a Python pickle, but no PyTorch checkpoint"));
    }
    if next()?.root != Value::Int(VERSION) {
        return Err(Fault::unsupported("a PyTorch checkpoint of an unknown version"));
    }
    let machine = next()?;
    if let Some(Object::Dict(items)) = machine.heap.get(machine.root)
        && items.contains(&(Value::Str("little_endian"), Value::Bool(false)))
    {
        return Err(big_endian());
    }
    let object = next()?;
    let keys = next()?;
    let widths: HashMap<&str, usize> =
        object.heap.storages().map(|s| (s.key, s.dtype.size())).collect();

    let mut sections = Sections(HashMap::new());
    for &key in keys.heap.sequence(keys.root)? {
        let Value::Str(key) = key else {
            return Err(Fault::damaged("a storage's key is not text"));
        };
        let width = *widths
            .get(key)
            .ok_or_else(|| Fault::damaged(format!("no tensor uses storage {key:?}")))?;
        let ends_early = || Fault::damaged(format!("it ends inside storage {key:?}"));
        let (len, data) = rest.split_first_chunk().ok_or_else(ends_early)?;
        let len = usize::try_from(i64::from_le_bytes(*len)).ok().and_then(|n| n.checked_mul(width));
        let (section, data) = len.and_then(|n| data.split_at_checked(n)).ok_or_else(ends_early)?;
        sections.0.insert(key, section);
        rest = data;
    }
    collect(&object, &mut sections)
}

/// The storages' bytes by key.
struct Sections<'a>(HashMap<&'a str, &'a [u8]>);

impl Storages for Sections<'_> {
    fn bytes(&mut self, key: &str) -> Result<&[u8]> {
        self.0
            .get(key)
            .copied()
            .ok_or_else(|| Fault::damaged(format!("storage {key:?} is missing")))
    }
}
