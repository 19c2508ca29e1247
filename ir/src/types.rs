//! Tensor types: element type and static shape, and the quantisation of a graph's inputs and outputs.

use crate::dtype::DType;
use std::fmt;
use std::hash::{Hash, Hasher};

/// A static shape, outermost dimension first; tensors are stored row-major.
pub type Shape = Vec<usize>;

/// An `f32` attribute, compared and hashed by its bits so that operators can be `Eq`, `Hash` and `Ord`.
#[derive(Clone, Copy, Debug)]
pub struct F32(pub f32);

impl PartialEq for F32 {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for F32 {}
impl Hash for F32 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
impl PartialOrd for F32 {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for F32 {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl fmt::Display for F32 {
    /// The shortest decimal that parses back to the same bits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The type of a value: element type and static shape.
///
/// The roles of the dimensions (NCHW, NHWC) and the quantisation belong to the operators that read them, so that they
/// cannot disagree with a second copy here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Shape,
}

impl TensorType {
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        TensorType { dtype, shape: shape.into() }
    }

    /// Number of elements. Shapes inside a verified graph cannot overflow.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of elements, or `None` where the product overflows.
    pub fn checked_elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    /// Bytes of storage.
    pub fn bytes(&self) -> usize {
        (self.elements() * self.dtype.bits()).div_ceil(8)
    }

    /// Elements between neighbours along each dimension in row-major order.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.shape.len()];
        for i in (1..self.shape.len()).rev() {
            strides[i - 1] = strides[i] * self.shape[i];
        }
        strides
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str("x")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// Affine quantisation of a whole tensor: real = scale * (q - zero_point).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuantParams {
    pub scale: F32,
    pub zero_point: i32,
}

/// The shape that numpy's rules give when `a` and `b` are broadcast together.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Shape> {
    let rank = a.len().max(b.len());
    (0..rank)
        .map(|i| {
            let dim = |s: &[usize]| if i + s.len() >= rank { s[i + s.len() - rank] } else { 1 };
            match (dim(a), dim(b)) {
                (x, y) if x == y => Some(x),
                (1, y) => Some(y),
                (x, 1) => Some(x),
                _ => None,
            }
        })
        .collect()
}

/// Row-major strides with which a tensor of shape `from` is read when broadcast to `to`: 0 along repeated dimensions.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; to.len()];
    let mut step = 1;
    for i in (0..from.len()).rev() {
        let at = i + to.len() - from.len();
        strides[at] = if from[i] == 1 { 0 } else { step };
        step *= from[i];
    }
    strides
}
