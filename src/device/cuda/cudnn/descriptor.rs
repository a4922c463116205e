//! A backend descriptor: created, given attributes, finalized, read; destroyed with what it refers
//! to.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
};
use cudarc::cudnn::sys::{cudnnBackendDescriptorType_t as Kind, cudnnHandle_t};

use super::api::{Answer, Api, Raw};

/// More than an engine has knobs or notes: cuDNN 9.21 knows 37 and 9 kinds.
pub const MANY: usize = 64;

/// A finalized descriptor, or one that an attribute was read into.
pub struct Descriptor {
    api: &'static Api,
    raw: Raw,
    /// What attributes refer to: it must outlive this one.
    held: Vec<Arc<Descriptor>>,
}

// SAFETY: a descriptor belongs to no thread, and a finalized one does not change. NOTE: what it was
// made with may: a handle is one thread's at a time, see `Lane`.
unsafe impl Send for Descriptor {}
// SAFETY: as above; reading a finalized descriptor changes nothing.
unsafe impl Sync for Descriptor {}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created by `empty`, destroyed once; what refers to it holds an Arc, so nothing
        // does any more.
        unsafe { (self.api.destroy_descriptor)(self.raw) };
    }
}

/// A plain value of an attribute, with its type's tag.
pub trait Value: Copy + Default {
    const TYPE: Type;
}

impl Value for i64 {
    const TYPE: Type = Type::CUDNN_TYPE_INT64;
}

impl Value for f32 {
    const TYPE: Type = Type::CUDNN_TYPE_FLOAT;
}

impl Value for bool {
    const TYPE: Type = Type::CUDNN_TYPE_BOOLEAN;
}

/// Device addresses.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Address(pub u64);

impl Value for Address {
    const TYPE: Type = Type::CUDNN_TYPE_VOID_PTR;
}

impl Descriptor {
    fn empty(api: &'static Api, kind: Kind) -> Answer<Self> {
        let mut raw: Raw = std::ptr::null_mut();
        // SAFETY: the pointer is to a live descriptor variable.
        let status = unsafe { (api.create_descriptor)(kind as u32, &mut raw) };
        api.check("cudnnBackendCreateDescriptor", status)?;
        Ok(Descriptor { api, raw, held: Vec::new() })
    }

    /// Creates, lets `set` give it attributes, finalizes.
    pub fn build(
        api: &'static Api,
        kind: Kind,
        set: impl FnOnce(&mut Self) -> Answer,
    ) -> Answer<Arc<Self>> {
        let mut descriptor = Descriptor::empty(api, kind)?;
        set(&mut descriptor)?;
        // SAFETY: the descriptor is alive.
        api.check(&format!("finalizing {kind:?}"), unsafe { (api.finalize)(descriptor.raw) })?;
        Ok(Arc::new(descriptor))
    }

    pub fn raw(&self) -> Raw {
        self.raw
    }

    fn put<T>(&mut self, name: Name, ty: Type, values: &[T]) -> Answer {
        let at: *const c_void = values.as_ptr().cast();
        // SAFETY: `values` is readable for its length, and T is what `ty` stands for: see the
        // callers.
        let status = unsafe {
            (self.api.set_attribute)(self.raw, name as u32, ty as u32, values.len() as i64, at)
        };
        self.api.check(&format!("setting {name:?}"), status)
    }

    pub fn set<T: Value>(&mut self, name: Name, values: &[T]) -> Answer {
        self.put(name, T::TYPE, values)
    }

    /// An enumerated value: C enums are 32-bit integers.
    pub fn set_enum(&mut self, name: Name, ty: Type, value: u32) -> Answer {
        self.put(name, ty, &[value])
    }

    pub fn set_handle(&mut self, name: Name, handle: cudnnHandle_t) -> Answer {
        self.put(name, Type::CUDNN_TYPE_HANDLE, &[handle])
    }

    pub fn set_descriptors(&mut self, name: Name, descriptors: &[Arc<Descriptor>]) -> Answer {
        let raw: Vec<Raw> = descriptors.iter().map(|d| d.raw).collect();
        self.held.extend_from_slice(descriptors);
        self.put(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &raw)
    }

    pub fn set_text(&mut self, name: Name, text: &str) -> Answer {
        self.put(name, Type::CUDNN_TYPE_CHAR, text.as_bytes())
    }

    /// Reads into `values`, and returns how many there are: more than `values` has room for,
    /// perhaps.
    fn read<T>(&self, name: Name, ty: Type, values: &mut [T]) -> Answer<usize> {
        let mut count = 0i64;
        let at: *mut c_void =
            if values.is_empty() { std::ptr::null_mut() } else { values.as_mut_ptr().cast() };
        let room = values.len() as i64;
        // SAFETY: `values` is writable for `room` elements of the type that `ty` stands for (see
        // the callers); `count` is alive.
        let status = unsafe {
            (self.api.get_attribute)(self.raw, name as u32, ty as u32, room, &mut count, at)
        };
        self.api.check(&format!("reading {name:?}"), status)?;
        Ok(count.max(0) as usize)
    }

    pub fn get<T: Value>(&self, name: Name) -> Answer<T> {
        let mut value = [T::default()];
        self.read(name, T::TYPE, &mut value)?;
        Ok(value[0])
    }

    /// An enumerated value, as an integer.
    ///
    /// NOTE: cuDNN refuses to read an attribute of one element into more room than for one.
    pub fn get_enum(&self, name: Name, ty: Type) -> Answer<u32> {
        let mut value = [0u32];
        self.read(name, ty, &mut value)?;
        Ok(value[0])
    }

    /// Enumerated values of an attribute of any number of elements, as integers.
    pub fn get_enums(&self, name: Name, ty: Type) -> Answer<Vec<u32>> {
        let mut values = vec![0u32; MANY];
        let count = self.read(name, ty, &mut values)?;
        values.truncate(count);
        Ok(values)
    }

    /// A text of any length.
    pub fn get_text(&self, name: Name) -> Answer<String> {
        let mut bytes = vec![0u8; self.read::<u8>(name, Type::CUDNN_TYPE_CHAR, &mut [])?];
        let count = self.read(name, Type::CUDNN_TYPE_CHAR, &mut bytes)?;
        bytes.truncate(count);
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').into())
    }

    /// How many descriptors there are to get.
    pub fn count(&self, name: Name) -> Answer<usize> {
        self.read::<Raw>(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut [])
    }

    /// Descriptors of `kind`, `room` at most: they are created here, and filled there.
    pub fn get_descriptors(
        &self,
        name: Name,
        kind: Kind,
        room: usize,
    ) -> Answer<Vec<Arc<Descriptor>>> {
        let mut found =
            (0..room).map(|_| Descriptor::empty(self.api, kind)).collect::<Answer<Vec<_>>>()?;
        let mut raw: Vec<Raw> = found.iter().map(|d| d.raw).collect();
        let filled = self.read(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut raw)?;
        found.truncate(filled);
        Ok(found.into_iter().map(Arc::new).collect())
    }
}
