//! Element types of tensors.

use std::fmt;

/// The element type of a tensor.
///
/// Types below one byte are stored packed, least significant bits first, each row-major tensor padded to a whole byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    I4,
    U4,
    I2,
    U2,
    /// Binary: a set bit is +1, a clear bit is -1.
    B1,
    /// Ternary: -1, 0 or +1 in two bits, two's complement.
    T2,
}

impl DType {
    /// Every element type, in the order of declaration.
    pub const ALL: [DType; 15] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U8,
        DType::Bool,
        DType::I4,
        DType::U4,
        DType::I2,
        DType::U2,
        DType::B1,
        DType::T2,
    ];

    /// The name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I16 => "i16",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::Bool => "bool",
            DType::I4 => "i4",
            DType::U4 => "u4",
            DType::I2 => "i2",
            DType::U2 => "u2",
            DType::B1 => "b1",
            DType::T2 => "t2",
        }
    }

    /// The type with this name in the text form.
    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Bits of one element.
    pub fn bits(self) -> usize {
        match self {
            DType::I64 => 64,
            DType::F32 | DType::I32 => 32,
            DType::F16 | DType::BF16 | DType::I16 => 16,
            DType::I8 | DType::U8 | DType::Bool => 8,
            DType::I4 | DType::U4 => 4,
            DType::I2 | DType::U2 | DType::T2 => 2,
            DType::B1 => 1,
        }
    }

    /// Bytes of `elements` packed elements; `None` on overflow.
    pub fn checked_bytes(self, elements: usize) -> Option<usize> {
        Some(elements.checked_mul(self.bits())?.div_ceil(8))
    }

    /// Whether one element takes at least a byte.
    pub fn is_byte_sized(self) -> bool {
        self.bits() >= 8
    }

    /// Whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// The smallest and largest value of an integer type of at most 32 bits.
    pub fn int_range(self) -> Option<(i32, i32)> {
        Some(match self {
            DType::I32 => (i32::MIN, i32::MAX),
            DType::I16 => (-32768, 32767),
            DType::I8 => (-128, 127),
            DType::U8 => (0, 255),
            DType::Bool => (0, 1),
            DType::I4 => (-8, 7),
            DType::U4 => (0, 15),
            DType::I2 => (-2, 1),
            DType::U2 => (0, 3),
            DType::B1 | DType::T2 => (-1, 1),
            DType::F32 | DType::F16 | DType::BF16 | DType::I64 => return None,
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
