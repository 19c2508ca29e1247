//! Constants: every storage form of an ONNX tensor becomes one [`Tensor`].
//!
//! Floating-point types of other widths (f16, bf16, f64) become f32, here and for inputs, outputs and casts alike: the
//! whole graph computes in f32. Unsigned types of 16 and more bits become i64 where their values fit, and serve as indices
//! and shapes only.

use crate::error::{Fault, Result, code, quote};
use crate::external::Files;
use crate::proto::{TensorProto, data_type as dt};
use half::{bf16, f16};
use mcc_ir::{DType, Tensor, TensorType};

/// Largest number of elements of any value, constant or computed.
pub(crate) const MAX_ELEMENTS: usize = 1 << 28;
/// Largest number of dimensions.
pub(crate) const MAX_RANK: usize = 32;

/// The element type in the graph of an ONNX element type, for tensors that are computed.
pub(crate) fn dtype(data_type: i32) -> Option<DType> {
    Some(match data_type {
        dt::FLOAT | dt::DOUBLE | dt::FLOAT16 | dt::BFLOAT16 => DType::F32,
        dt::UINT8 => DType::U8,
        dt::INT8 => DType::I8,
        dt::INT16 => DType::I16,
        dt::INT32 => DType::I32,
        dt::INT64 => DType::I64,
        dt::BOOL => DType::Bool,
        _ => return None,
    })
}

/// A shape from the signed dimensions of the file.
pub(crate) fn shape(dims: &[i64]) -> Result<Vec<usize>> {
    let bad =
        || Fault::new(code::TENSOR, format!("dimensions {dims:?} hold a negative size"), "export the model again");
    if dims.len() > MAX_RANK {
        return Err(Fault::limit(format!("a tensor has {} dimensions, at most {MAX_RANK} are supported", dims.len())));
    }
    let shape = dims.iter().map(|&d| usize::try_from(d).map_err(|_| bad())).collect::<Result<Vec<usize>>>()?;
    check_size(&shape)?;
    Ok(shape)
}

/// Refuses shapes of more than [`MAX_ELEMENTS`].
pub(crate) fn check_size(shape: &[usize]) -> Result<()> {
    // Dimensions of 0 do not count, so that no product of the others overflows later.
    let elements = shape.iter().filter(|&&d| d > 0).try_fold(1usize, |n, &d| n.checked_mul(d));
    match elements {
        Some(n) if n <= MAX_ELEMENTS => Ok(()),
        _ => Err(Fault::limit(format!("a tensor of shape {shape:?} has more than {MAX_ELEMENTS} elements"))),
    }
}

/// The value of a tensor of the file.
///
/// # Errors
/// Malformed contents, element types without a counterpart, external data that cannot be read.
pub(crate) fn decode(t: &TensorProto, files: &mut Files) -> Result<Tensor> {
    let malformed = |reason: String| {
        Fault::new(code::TENSOR, format!("tensor {}: {reason}", quote(&t.name)), "export the model again")
    };
    if t.segment.is_some() {
        return Err(malformed("it is stored in segments, which ONNX does not define for models".into()));
    }
    if t.data_type == dt::STRING || !t.string_data.is_empty() {
        return Err(unsupported_type(t));
    }
    let shape =
        shape(&t.dims).map_err(|f| Fault { reason: format!("tensor {}: {}", quote(&t.name), f.reason), ..f })?;
    let elements: usize = shape.iter().product();
    let typed = [t.float_data.len(), t.int32_data.len(), t.int64_data.len(), t.double_data.len(), t.uint64_data.len()];
    let mut raw = t.raw_data.clone();
    match t.data_location {
        0 => {}
        1 => {
            if raw.is_some_and(|r| !r.is_empty()) || typed.iter().any(|&n| n > 0) {
                return Err(malformed("it has both external and own data".into()));
            }
            let bits = width(t.data_type).ok_or_else(|| unsupported_type(t))?;
            let bytes = (elements * bits).div_ceil(8);
            raw = Some(files.read(t, bytes)?);
        }
        n => return Err(malformed(format!("its data location is {n}, which is neither 0 (inside) nor 1 (external)"))),
    }
    let fields = typed.iter().filter(|&&n| n > 0).count() + raw.as_ref().is_some_and(|r| !r.is_empty()) as usize;
    if fields > 1 {
        return Err(malformed("it has data in more than one field".into()));
    }
    if let Some(raw) = raw.filter(|r| !r.is_empty()) {
        let bits = width(t.data_type).ok_or_else(|| unsupported_type(t))?;
        let expected = (elements * bits).div_ceil(8);
        if raw.len() != expected {
            let (name, found) = (dt::name(t.data_type), raw.len());
            return Err(malformed(format!("{name} of shape {shape:?} takes {expected} bytes, there are {found}")));
        }
        return from_raw(t, shape, raw);
    }
    let counted = |found: usize| match found == elements {
        true => Ok(()),
        false => Err(malformed(format!(
            "{} of shape {shape:?} takes {elements} elements, there are {found} in its field",
            dt::name(t.data_type)
        ))),
    };
    let only = |index: usize| match typed.iter().enumerate().all(|(i, &n)| i == index || n == 0) {
        true => counted(typed[index]),
        false => Err(malformed(format!("its data is not in the field of {}", dt::name(t.data_type)))),
    };
    match t.data_type {
        dt::FLOAT => {
            only(0)?;
            Ok(Tensor::new(shape, &t.float_data))
        }
        dt::FLOAT16 | dt::BFLOAT16 => {
            only(1)?;
            let half = t.data_type == dt::FLOAT16;
            let one = |&v: &i32| match half {
                true => f16::from_bits(v as u16).to_f32(),
                false => bf16::from_bits(v as u16).to_f32(),
            };
            Ok(Tensor::new(shape, &t.int32_data.iter().map(one).collect::<Vec<_>>()))
        }
        dt::INT8 | dt::UINT8 | dt::INT16 | dt::INT32 | dt::BOOL => {
            only(1)?;
            let ty = TensorType::new(dtype(t.data_type).ok_or_else(|| unsupported_type(t))?, shape);
            Ok(Tensor::from_i64(ty, &t.int32_data.iter().map(|&v| v as i64).collect::<Vec<_>>()))
        }
        // Bytes of two elements, one in each number of the field.
        dt::INT4 | dt::UINT4 => {
            let (found, bytes) = (typed[1], elements.div_ceil(2));
            if found != bytes || typed.iter().sum::<usize>() != found {
                let name = dt::name(t.data_type);
                return Err(malformed(format!("{name} of shape {shape:?} takes {bytes} bytes, there are {found}")));
            }
            let bytes: Vec<u8> = t.int32_data.iter().map(|&v| v as u8).collect();
            from_raw(t, shape, bytes.into())
        }
        dt::UINT16 => {
            only(1)?;
            Ok(Tensor::new(shape, &t.int32_data.iter().map(|&v| v as u16 as i64).collect::<Vec<_>>()))
        }
        dt::INT64 => {
            only(2)?;
            Ok(Tensor::new(shape, &t.int64_data))
        }
        dt::DOUBLE => {
            only(3)?;
            Ok(Tensor::new(shape, &t.double_data.iter().map(|&v| v as f32).collect::<Vec<_>>()))
        }
        dt::UINT32 | dt::UINT64 => {
            only(4)?;
            unsigned(t, shape, t.uint64_data.iter().copied())
        }
        _ => Err(unsupported_type(t)),
    }
}

/// Bits of one element of raw data.
fn width(data_type: i32) -> Option<usize> {
    Some(match data_type {
        dt::DOUBLE | dt::INT64 | dt::UINT64 => 64,
        dt::FLOAT | dt::INT32 | dt::UINT32 => 32,
        dt::FLOAT16 | dt::BFLOAT16 | dt::INT16 | dt::UINT16 => 16,
        dt::INT8 | dt::UINT8 | dt::BOOL => 8,
        dt::INT4 | dt::UINT4 => 4,
        _ => return None,
    })
}

/// A tensor from raw data of the right length.
fn from_raw(t: &TensorProto, shape: Vec<usize>, raw: bytes::Bytes) -> Result<Tensor> {
    let own = |dtype: DType, shape: Vec<usize>, raw: bytes::Bytes| {
        Tensor::from_bytes(TensorType::new(dtype, shape), raw)
            .map_err(|e| Fault::new(code::TENSOR, format!("tensor {}: {e}", quote(&t.name)), "export the model again"))
    };
    fn map<const N: usize, T>(raw: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
        raw.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
    }
    Ok(match t.data_type {
        dt::FLOAT16 => Tensor::new(shape, &map(&raw, |b| f16::from_le_bytes(b).to_f32())),
        dt::BFLOAT16 => Tensor::new(shape, &map(&raw, |b| bf16::from_le_bytes(b).to_f32())),
        dt::DOUBLE => Tensor::new(shape, &map(&raw, |b| f64::from_le_bytes(b) as f32)),
        dt::UINT16 => Tensor::new(shape, &map(&raw, |b| u16::from_le_bytes(b) as i64)),
        dt::UINT32 => Tensor::new(shape, &map(&raw, |b| u32::from_le_bytes(b) as i64)),
        dt::UINT64 => return unsigned(t, shape, map(&raw, u64::from_le_bytes).into_iter()),
        // Any byte but 0 is true; later code may rely on 0 and 1.
        dt::BOOL => Tensor::new(shape, &raw.iter().map(|&b| b != 0).collect::<Vec<_>>()),
        dt::INT4 => own(DType::I4, shape, raw)?,
        dt::UINT4 => own(DType::U4, shape, raw)?,
        other => own(dtype(other).ok_or_else(|| unsupported_type(t))?, shape, raw)?,
    })
}

fn unsigned(t: &TensorProto, shape: Vec<usize>, values: impl Iterator<Item = u64>) -> Result<Tensor> {
    let fit: std::result::Result<Vec<i64>, _> = values.map(i64::try_from).collect();
    let values = fit.map_err(|_| {
        let reason = format!("tensor {}: a value of {} exceeds 2^63 - 1", quote(&t.name), dt::name(t.data_type));
        Fault::new(code::ELEMENT_TYPE, reason, "export it as INT64")
    })?;
    Ok(Tensor::new(shape, &values))
}

fn unsupported_type(t: &TensorProto) -> Fault {
    Fault::new(
        code::ELEMENT_TYPE,
        format!("tensor {} has the element type {}", quote(&t.name), dt::name(t.data_type)),
        "supported are FLOAT, FLOAT16, BFLOAT16, DOUBLE (all computed as f32), INT8 to INT64, UINT8 to UINT64, BOOL, and \
         INT4 and UINT4",
    )
}
