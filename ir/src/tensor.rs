//! Tensor values: constants of a graph, inputs and results of the evaluator.

use crate::dtype::DType;
use crate::types::{Shape, TensorType};
use bytes::Bytes;
use half::{bf16, f16};
use sha2::{Digest, Sha256};
use std::fmt;
use std::hash::{Hash, Hasher};

/// A tensor value: row-major little-endian bytes, shared on clone.
#[derive(Clone, Eq)]
pub struct Tensor {
    ty: TensorType,
    data: Bytes,
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        // Clones share their bytes, and graphs hold many.
        self.ty == other.ty && (self.data.as_ptr() == other.data.as_ptr() || self.data == other.data)
    }
}

impl Hash for Tensor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ty.hash(state);
        digest(&self.data).hash(state);
    }
}

/// A number that depends on every byte, several times faster than the standard hash: each pass over a graph asks for that
/// of all weights. Four chains of multiplications, so that none waits for another.
fn digest(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut chains = [1u64, 2, 3, 4];
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut last = [0; 32];
    last[..rest.len()].copy_from_slice(rest);
    for block in blocks.iter().chain([&last]) {
        for (chain, word) in chains.iter_mut().zip(block.as_chunks::<8>().0) {
            *chain = (*chain ^ u64::from_le_bytes(*word)).wrapping_mul(ODD).rotate_left(31);
        }
    }
    chains.iter().fold(bytes.len() as u64, |all, chain| (all ^ chain).wrapping_mul(ODD).rotate_left(31))
}

/// Why bytes and a type make no tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("a tensor of type {ty} needs {expected} bytes, not {found}")]
    Length { ty: TensorType, expected: usize, found: usize },
    #[error("the size of {ty} does not fit in memory")]
    TooLarge { ty: TensorType },
}

/// A Rust type that stores one tensor element.
pub trait Element: Copy + 'static {
    const DTYPE: DType;
    fn write(self, out: &mut Vec<u8>);
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($t:ty => $d:ident),*) => { $(
        impl Element for $t {
            const DTYPE: DType = DType::$d;
            fn write(self, out: &mut Vec<u8>) { out.extend_from_slice(&self.to_le_bytes()); }
            fn read(bytes: &[u8]) -> Self {
                let mut raw = [0; std::mem::size_of::<$t>()];
                raw.copy_from_slice(bytes);
                <$t>::from_le_bytes(raw)
            }
        }
    )* };
}
element!(f32 => F32, i64 => I64, i32 => I32, i16 => I16, i8 => I8, u8 => U8);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn write(self, out: &mut Vec<u8>) {
        out.push(self as u8);
    }
    fn read(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
}

impl Tensor {
    /// A tensor from its raw bytes, row-major, little-endian.
    ///
    /// # Errors
    /// Where the number of bytes does not match the type.
    pub fn from_bytes(ty: TensorType, data: impl Into<Bytes>) -> Result<Tensor, TensorError> {
        let data = data.into();
        let expected = ty
            .checked_elements()
            .and_then(|n| ty.dtype.checked_bytes(n))
            .ok_or_else(|| TensorError::TooLarge { ty: ty.clone() })?;
        if data.len() != expected {
            return Err(TensorError::Length { ty, expected, found: data.len() });
        }
        Ok(Tensor { ty, data })
    }

    /// A tensor from typed elements in row-major order.
    ///
    /// # Panics
    /// Where the number of elements is not that of the shape: a bug of the caller, never a property of a model.
    pub fn new<T: Element>(shape: impl Into<Shape>, elements: &[T]) -> Tensor {
        let ty = TensorType::new(T::DTYPE, shape);
        assert_eq!(ty.elements(), elements.len(), "elements of {ty}");
        let mut data = Vec::with_capacity(ty.bytes());
        elements.iter().for_each(|e| e.write(&mut data));
        Tensor { ty, data: data.into() }
    }

    /// A tensor of type `ty` whose elements are `values`, converted: floats rounded to nearest, integers wrapped.
    ///
    /// # Panics
    /// Where the number of elements is not that of the type.
    pub fn from_f64(ty: TensorType, values: &[f64]) -> Tensor {
        assert_eq!(ty.elements(), values.len(), "elements of {ty}");
        let mut data = Vec::with_capacity(ty.bytes());
        match ty.dtype {
            DType::F32 => values.iter().for_each(|v| (*v as f32).write(&mut data)),
            DType::F16 => values.iter().for_each(|v| data.extend(f16::from_f64(*v).to_le_bytes())),
            DType::BF16 => values.iter().for_each(|v| data.extend(bf16::from_f64(*v).to_le_bytes())),
            _ => return Self::from_i64(ty, &values.iter().map(|v| *v as i64).collect::<Vec<_>>()),
        }
        Tensor { ty, data: data.into() }
    }

    /// A tensor of type `ty` whose elements are `values`, converted: integers wrap to the type's width.
    ///
    /// # Panics
    /// Where the number of elements is not that of the type.
    pub fn from_i64(ty: TensorType, values: &[i64]) -> Tensor {
        assert_eq!(ty.elements(), values.len(), "elements of {ty}");
        let mut data = Vec::with_capacity(ty.bytes());
        match ty.dtype {
            DType::I64 => values.iter().for_each(|v| v.write(&mut data)),
            DType::I32 => values.iter().for_each(|v| (*v as i32).write(&mut data)),
            DType::I16 => values.iter().for_each(|v| (*v as i16).write(&mut data)),
            DType::I8 | DType::U8 => values.iter().for_each(|v| data.push(*v as u8)),
            DType::Bool => values.iter().for_each(|v| data.push((*v != 0) as u8)),
            DType::F32 | DType::F16 | DType::BF16 => {
                return Self::from_f64(ty, &values.iter().map(|v| *v as f64).collect::<Vec<_>>());
            }
            DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::T2 | DType::B1 => {
                let bits = ty.dtype.bits();
                data.resize(ty.bytes(), 0);
                for (i, v) in values.iter().enumerate() {
                    let v = if ty.dtype == DType::B1 { (*v > 0) as u8 } else { *v as u8 };
                    data[i * bits / 8] |= (v & ((1 << bits) - 1)) << (i * bits % 8);
                }
            }
        }
        Tensor { ty, data: data.into() }
    }

    /// A rank-0 `f32` tensor.
    pub fn scalar(v: f32) -> Tensor {
        Tensor::new([], &[v])
    }

    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    pub fn shape(&self) -> &[usize] {
        &self.ty.shape
    }

    pub fn dtype(&self) -> DType {
        self.ty.dtype
    }

    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The elements as `T`; `None` where the element type is another.
    pub fn to_vec<T: Element>(&self) -> Option<Vec<T>> {
        let size = T::DTYPE.bits() / 8;
        (self.ty.dtype == T::DTYPE).then(|| self.data.chunks_exact(size).map(T::read).collect())
    }

    /// The elements as `f64`, exact for every type but `i64` beyond 2^53.
    pub fn to_f64(&self) -> Vec<f64> {
        match self.ty.dtype {
            DType::F32 => self.data.chunks_exact(4).map(|b| f32::read(b) as f64).collect(),
            DType::F16 => self.data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
            DType::BF16 => self.data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
            _ => self.to_i64().into_iter().map(|v| v as f64).collect(),
        }
    }

    /// The elements as `f32`, rounded to nearest where the type is wider.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.ty.dtype {
            DType::F32 => self.data.chunks_exact(4).map(f32::read).collect(),
            _ => self.to_f64().into_iter().map(|v| v as f32).collect(),
        }
    }

    /// The elements as `i64`; floats are truncated towards zero.
    pub fn to_i64(&self) -> Vec<i64> {
        match self.ty.dtype {
            DType::I64 => self.data.chunks_exact(8).map(i64::read).collect(),
            DType::I32 => self.data.chunks_exact(4).map(|b| i32::read(b) as i64).collect(),
            DType::I16 => self.data.chunks_exact(2).map(|b| i16::read(b) as i64).collect(),
            DType::I8 => self.data.iter().map(|&b| b as i8 as i64).collect(),
            DType::U8 => self.data.iter().map(|&b| b as i64).collect(),
            DType::Bool => self.data.iter().map(|&b| (b != 0) as i64).collect(),
            DType::F32 | DType::F16 | DType::BF16 => self.to_f64().into_iter().map(|v| v as i64).collect(),
            DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::T2 | DType::B1 => {
                let (bits, signed) = match self.ty.dtype {
                    DType::I4 => (4, true),
                    DType::U4 => (4, false),
                    DType::I2 | DType::T2 => (2, true),
                    DType::U2 => (2, false),
                    _ => (1, false),
                };
                (0..self.ty.elements())
                    .map(|i| {
                        let raw = (self.data[i * bits / 8] >> (i * bits % 8)) & ((1 << bits) - 1);
                        match (self.ty.dtype, signed) {
                            (DType::B1, _) => raw as i64 * 2 - 1,
                            (_, true) => ((raw << (8 - bits)) as i8 >> (8 - bits)) as i64,
                            (_, false) => raw as i64,
                        }
                    })
                    .collect()
            }
        }
    }

    /// The same elements under another shape of equal size.
    ///
    /// # Panics
    /// Where the sizes differ.
    pub fn reshaped(&self, shape: impl Into<Shape>) -> Tensor {
        let ty = TensorType::new(self.ty.dtype, shape);
        assert_eq!(ty.elements(), self.ty.elements(), "reshape {} to {ty}", self.ty);
        Tensor { ty, data: self.data.clone() }
    }

    /// SHA-256 of type and bytes, in hexadecimal.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.ty.to_string());
        hash.update(&self.data);
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}, sha256:{})", self.ty, &self.sha256()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any byte, and the number of bytes, make a difference.
    #[test]
    fn digests_depend_on_every_byte() {
        let mut seen = std::collections::HashSet::new();
        for len in 0..100 {
            let mut bytes = vec![0u8; len];
            assert!(seen.insert(digest(&bytes)));
            for i in 0..len {
                for value in [1, 128] {
                    bytes[i] = value;
                    assert!(seen.insert(digest(&bytes)), "byte {i} of {len}");
                }
                bytes[i] = 0;
            }
        }
    }

    #[test]
    fn packed_types_round_trip() {
        for (dtype, values) in [
            (DType::I4, vec![-8, 7, 0, -1, 3]),
            (DType::U4, vec![15, 0, 9]),
            (DType::I2, vec![-2, 1, 0, -1, 1]),
            (DType::T2, vec![-1, 0, 1, 1, -1]),
            (DType::B1, vec![-1, 1, 1, -1, 1, 1, 1, 1, -1]),
            (DType::I16, vec![-300, 300]),
            (DType::F16, vec![-2, 5]),
        ] {
            let t = Tensor::from_i64(TensorType::new(dtype, [values.len()]), &values);
            assert_eq!(t.to_i64(), values, "{dtype}");
            assert_eq!(t.bytes().len(), t.ty().bytes());
        }
    }

    #[test]
    fn length_is_checked() {
        let ty = TensorType::new(DType::F32, [2, 2]);
        assert!(matches!(
            Tensor::from_bytes(ty, vec![0; 15]),
            Err(TensorError::Length { expected: 16, found: 15, .. })
        ));
        let ty = TensorType::new(DType::F32, [usize::MAX, 2]);
        assert!(matches!(Tensor::from_bytes(ty, vec![]), Err(TensorError::TooLarge { .. })));
    }
}
