//! NumPy archives: named tensors in, named tensors out.

use mcc::ir::ops::within_limits;
use mcc::ir::{DType, Tensor, TensorType};
use mcc::{Error, Result};
use npyz::npz::{NpzArchive, NpzWriter};
use npyz::zip::write::FileOptions;
use npyz::{AutoSerialize, Order, TypeChar, WriterBuilder};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

/// An archive open for reading.
pub struct Npz {
    path: PathBuf,
    archive: NpzArchive<BufReader<File>>,
    names: Vec<String>,
}

impl Npz {
    /// Opens an archive.
    ///
    /// # Errors
    /// Where the file cannot be read or is no archive.
    pub fn open(path: &Path) -> Result<Npz> {
        let file = File::open(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let archive = NpzArchive::new(BufReader::new(file))
            .map_err(|e| Error::Data { path: path.into(), reason: format!("not a NumPy archive (.npz): {e}") })?;
        let mut names: Vec<String> = archive.array_names().map(str::to_string).collect();
        names.sort();
        Ok(Npz { path: path.into(), archive, names })
    }

    /// The names of all arrays, ascending.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The array with this name; `None` where there is none. `f64` becomes `f32`; unsigned integers above 8 bits become
    /// `i32` or `i64`.
    ///
    /// # Errors
    /// Where the array is malformed or of a type that is not supported.
    pub fn get(&mut self, name: &str) -> Result<Option<Tensor>> {
        let fail =
            |reason: String| Error::Data { path: self.path.clone(), reason: format!("array {name:?}: {reason}") };
        let file = match self.archive.by_name(name) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(None),
            Err(e) => return Err(fail(e.to_string())),
        };
        decode(file, fail).map(Some)
    }

    /// The array with this name.
    ///
    /// # Errors
    /// As [`Npz::get`], and where there is none; the message lists all names.
    pub fn require(&mut self, name: &str) -> Result<Tensor> {
        match self.get(name)? {
            Some(tensor) => Ok(tensor),
            None => {
                let reason = format!("it has no array {name:?}; its arrays are {}", self.names.join(", "));
                Err(Error::Data { path: self.path.clone(), reason })
            }
        }
    }
}

/// The array in a `.npy` file.
///
/// # Errors
/// Where it cannot be read, is malformed or of a type that is not supported.
pub fn read_array(path: &Path) -> Result<Tensor> {
    let file = File::open(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let fail = |reason: String| Error::Data { path: path.into(), reason };
    let file = npyz::NpyFile::new(BufReader::new(file)).map_err(|e| fail(format!("not a NumPy array (.npy): {e}")))?;
    decode(file, fail)
}

/// An array as a tensor; types as [`Npz::get`].
fn decode<R: Read>(file: npyz::NpyFile<R>, fail: impl Fn(String) -> Error) -> Result<Tensor> {
    let header = file.header();
    let shape: Option<Vec<usize>> = header.shape().iter().map(|d| usize::try_from(*d).ok()).collect();
    let (shape, order) = (shape.ok_or_else(|| fail("its shape is too large".into()))?, header.order());
    let described = header.dtype().descr();
    let npyz::DType::Plain(ty) = header.dtype() else {
        return Err(fail(format!("elements of type {described} are not supported")));
    };
    let element = match (ty.type_char(), ty.size_field(), ty.endianness()) {
        (_, _, npyz::Endianness::Big) => None,
        (kind, size, _) => element(kind, size),
    };
    let Some(Element { dtype, bytes, convert }) = element else {
        return Err(fail(format!("elements of type {described} are not supported")));
    };
    let ty = TensorType::new(dtype, shape);
    if !within_limits(&ty) {
        return Err(fail(format!("{ty} is too large")));
    }
    let expected = ty.elements() * bytes;
    let mut raw = Vec::new();
    file.into_inner().take(expected as u64).read_to_end(&mut raw).map_err(|e| fail(e.to_string()))?;
    if raw.len() != expected {
        return Err(fail(format!("it has {} bytes of data, {expected} are due", raw.len())));
    }
    let mut data = Vec::with_capacity(ty.bytes());
    raw.chunks_exact(bytes).for_each(|b| convert(b, &mut data));
    let tensor = match order {
        Order::C => Tensor::from_bytes(ty, data),
        Order::Fortran => {
            let mut reversed = ty.shape.clone();
            reversed.reverse();
            let perm: Vec<usize> = (0..ty.rank()).rev().collect();
            Tensor::from_bytes(TensorType::new(ty.dtype, reversed), data)
                .map(|t| mcc::ir::packing::Packing::Permute(perm).apply(&t))
        }
    };
    tensor.map_err(|e| fail(e.to_string()))
}

/// How one element of an array becomes one of a tensor.
struct Element {
    dtype: DType,
    /// Bytes in the file.
    bytes: usize,
    convert: fn(&[u8], &mut Vec<u8>),
}

fn element(kind: TypeChar, size: u64) -> Option<Element> {
    type Convert = fn(&[u8], &mut Vec<u8>);
    let copy: Convert = |b, out| out.extend_from_slice(b);
    let (dtype, convert): (DType, Convert) = match (kind, size) {
        (TypeChar::Float, 2) => (DType::F16, copy),
        (TypeChar::Float, 4) => (DType::F32, copy),
        (TypeChar::Float, 8) => (DType::F32, narrow),
        (TypeChar::Int, 1) => (DType::I8, copy),
        (TypeChar::Int, 2) => (DType::I16, copy),
        (TypeChar::Int, 4) => (DType::I32, copy),
        (TypeChar::Int, 8) | (TypeChar::Uint, 8) => (DType::I64, copy),
        (TypeChar::Uint, 1) => (DType::U8, copy),
        (TypeChar::Uint, 2) => (DType::I32, |b, out| out.extend_from_slice(&[b[0], b[1], 0, 0])),
        (TypeChar::Uint, 4) => (DType::I64, |b, out| {
            out.extend_from_slice(b);
            out.extend_from_slice(&[0; 4]);
        }),
        (TypeChar::Bool, 1) => (DType::Bool, |b, out| out.push((b[0] != 0) as u8)),
        _ => return None,
    };
    Some(Element { dtype, bytes: size as usize, convert })
}

fn narrow(bytes: &[u8], out: &mut Vec<u8>) {
    let mut raw = [0; 8];
    raw.copy_from_slice(bytes);
    out.extend_from_slice(&(f64::from_le_bytes(raw) as f32).to_le_bytes());
}

/// The bytes of an archive with these arrays. The same arrays give the same bytes.
///
/// # Errors
/// Where a tensor has an element type that NumPy does not have.
pub fn encode(arrays: &[(String, Tensor)]) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = NpzWriter::new(&mut bytes);
    for (name, tensor) in arrays {
        match tensor.dtype() {
            DType::F32 => add::<f32>(&mut writer, name, tensor)?,
            DType::I64 => add::<i64>(&mut writer, name, tensor)?,
            DType::I32 => add::<i32>(&mut writer, name, tensor)?,
            DType::I16 => add::<i16>(&mut writer, name, tensor)?,
            DType::I8 => add::<i8>(&mut writer, name, tensor)?,
            DType::U8 => add::<u8>(&mut writer, name, tensor)?,
            DType::Bool => add::<bool>(&mut writer, name, tensor)?,
            other => return Err(io::Error::other(format!("{name:?}: NumPy has no element type {other}"))),
        }
    }
    drop(writer);
    Ok(bytes.into_inner())
}

fn add<T: mcc::ir::tensor::Element + AutoSerialize>(
    writer: &mut NpzWriter<&mut Cursor<Vec<u8>>>,
    name: &str,
    tensor: &Tensor,
) -> io::Result<()> {
    let shape: Vec<u64> = tensor.shape().iter().map(|d| *d as u64).collect();
    let options = FileOptions::default().last_modified_time(npyz::zip::DateTime::default());
    let mut array = writer.array::<T>(name, options)?.default_dtype().shape(&shape).begin_nd()?;
    array.extend(tensor.to_vec::<T>().unwrap_or_default())?;
    array.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_every_type_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let arrays = [
            ("in:x/0".to_string(), Tensor::new([2, 2], &[1.5f32, -0.0, f32::INFINITY, 3.0])),
            ("i64".to_string(), Tensor::new([1], &[i64::MIN])),
            ("i32".to_string(), Tensor::new([], &[-7i32])),
            ("i16".to_string(), Tensor::new([3], &[-300i16, 2, 3])),
            ("i8".to_string(), Tensor::new([2], &[-128i8, 127])),
            ("u8".to_string(), Tensor::new([2], &[0u8, 255])),
            ("b".to_string(), Tensor::new([2], &[true, false])),
        ];
        let bytes = encode(&arrays).unwrap();
        assert_eq!(bytes, encode(&arrays).unwrap());
        std::fs::write(&path, bytes).unwrap();
        let mut npz = Npz::open(&path).unwrap();
        for (name, tensor) in &arrays {
            assert_eq!(&npz.require(name).unwrap(), tensor);
        }
        assert!(npz.require("y").unwrap_err().to_string().contains("in:x/0"));
    }

    #[test]
    fn fortran_order_is_turned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = NpzWriter::new(&mut bytes);
        let array = writer.array::<f64>("x", FileOptions::default()).unwrap().default_dtype();
        let mut array = array.order(Order::Fortran).shape(&[2, 3]).begin_nd().unwrap();
        array.extend([1.0f64, 4.0, 2.0, 5.0, 3.0, 6.0]).unwrap();
        array.finish().unwrap();
        drop(writer);
        std::fs::write(&path, bytes.into_inner()).unwrap();
        let x = Npz::open(&path).unwrap().require("x").unwrap();
        assert_eq!(x, Tensor::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }
}
