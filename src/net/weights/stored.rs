//! Element types as files name them, and their decoding.

use half::{bf16, f16};

use super::Data;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StoredType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U16,
    U8,
    Bool,
}

use StoredType::*;

/// (element type, PyTorch's storage class, PyTorch's dtype); uint16 has no storage class of its
/// own.
const TORCH: [(StoredType, &str, &str); 11] = [
    (F64, "DoubleStorage", "float64"),
    (F32, "FloatStorage", "float32"),
    (F16, "HalfStorage", "float16"),
    (Bf16, "BFloat16Storage", "bfloat16"),
    (I64, "LongStorage", "int64"),
    (I32, "IntStorage", "int32"),
    (I16, "ShortStorage", "int16"),
    (I8, "CharStorage", "int8"),
    (U16, "", "uint16"),
    (U8, "ByteStorage", "uint8"),
    (Bool, "BoolStorage", "bool"),
];

impl StoredType {
    pub fn of_storage(class: &str) -> Option<Self> {
        TORCH.iter().find(|t| t.1 == class && !class.is_empty()).map(|t| t.0)
    }

    pub fn of_torch(name: &str) -> Option<Self> {
        TORCH.iter().find(|t| t.2 == name).map(|t| t.0)
    }

    pub fn of_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype as S;
        Some(match dtype {
            S::F64 => F64,
            S::F32 => F32,
            S::F16 => F16,
            S::BF16 => Bf16,
            S::I64 => I64,
            S::I32 => I32,
            S::I16 => I16,
            S::I8 => I8,
            S::U16 => U16,
            S::U8 => U8,
            S::BOOL => Bool,
            _ => return None,
        })
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            F64 | I64 => 8,
            F32 | I32 => 4,
            F16 | Bf16 | I16 | U16 => 2,
            I8 | U8 | Bool => 1,
        }
    }

    /// Bytes per element of what [`StoredType::decode`] makes of them.
    pub fn decoded(self) -> usize {
        match self {
            I64 | I32 | I16 | I8 => 8,
            F64 | F32 | F16 | Bf16 => 4,
            U16 => 2,
            U8 | Bool => 1,
        }
    }

    /// Little-endian `bytes` as elements.
    pub fn decode(self, bytes: &[u8]) -> Data {
        match self {
            F64 => Data::F32(each(bytes, |b| f64::from_le_bytes(b) as f32)),
            F32 => Data::F32(each(bytes, f32::from_le_bytes)),
            F16 => Data::F32(each(bytes, |b| f16::from_le_bytes(b).to_f32())),
            Bf16 => Data::F32(each(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            I64 => Data::I64(each(bytes, i64::from_le_bytes)),
            I32 => Data::I64(each(bytes, |b| i32::from_le_bytes(b).into())),
            I16 => Data::I64(each(bytes, |b| i16::from_le_bytes(b).into())),
            I8 => Data::I64(each(bytes, |b| i8::from_le_bytes(b).into())),
            U16 => Data::U16(each(bytes, u16::from_le_bytes)),
            U8 | Bool => Data::U8(bytes.to_vec()),
        }
    }
}

fn each<const N: usize, T>(bytes: &[u8], one: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|b| one(*b)).collect()
}
