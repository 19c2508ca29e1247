//! Packings: the orders in which kernels want their constant operands laid out.

use crate::tensor::Tensor;
use crate::types::TensorType;

/// A compile-time permutation of a constant's elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Packing {
    /// Row-major, as it is.
    None,
    /// Dimension i of the packed tensor is dimension `perm[i]` of the tensor.
    Permute(Vec<usize>),
    /// A tensor `[N, K...]` as a matrix of N rows and K columns, in blocks: `[N / rows][K / depth][rows][depth]`, both
    /// rounded up and filled with zeros. Packed shape: `[ceil(N / rows), ceil(K / depth), rows, depth]`.
    Panel { rows: usize, depth: usize },
}

impl Packing {
    /// The type of the packed tensor.
    pub fn packed_type(&self, ty: &TensorType) -> TensorType {
        match self {
            Packing::None => ty.clone(),
            Packing::Permute(perm) => TensorType::new(ty.dtype, perm.iter().map(|&p| ty.shape[p]).collect::<Vec<_>>()),
            Packing::Panel { rows, depth } => {
                let (n, k) = matrix(ty);
                TensorType::new(ty.dtype, [n.div_ceil(*rows), k.div_ceil(*depth), *rows, *depth])
            }
        }
    }

    /// The packed tensor.
    pub fn apply(&self, tensor: &Tensor) -> Tensor {
        let ty = self.packed_type(tensor.ty());
        match self {
            Packing::None => tensor.clone(),
            Packing::Permute(perm) => {
                let strides: Vec<usize> = {
                    let s = tensor.ty().strides();
                    perm.iter().map(|&p| s[p]).collect()
                };
                let mut from = Vec::with_capacity(ty.elements());
                let mut at = vec![0usize; ty.rank()];
                for _ in 0..ty.elements() {
                    from.push(Some(at.iter().zip(&strides).map(|(i, s)| i * s).sum()));
                    advance(&mut at, &ty.shape);
                }
                gather(tensor, ty, &from)
            }
            Packing::Panel { rows, depth } => {
                let (n, k) = matrix(tensor.ty());
                let mut from = Vec::with_capacity(ty.elements());
                for nb in (0..n).step_by(*rows) {
                    for kb in (0..k).step_by(*depth) {
                        for r in nb..nb + rows {
                            for c in kb..kb + depth {
                                from.push((r < n && c < k).then_some(r * k + c));
                            }
                        }
                    }
                }
                gather(tensor, ty, &from)
            }
        }
    }
}

/// Steps a row-major index over `shape`.
fn advance(at: &mut [usize], shape: &[usize]) {
    for i in (0..shape.len()).rev() {
        at[i] += 1;
        if at[i] < shape[i] {
            return;
        }
        at[i] = 0;
    }
}

fn matrix(ty: &TensorType) -> (usize, usize) {
    let n = ty.shape.first().copied().unwrap_or(1);
    (n, ty.elements() / n.max(1))
}

/// A tensor of byte-sized elements whose element i is element `from[i]`, or zero.
fn gather(tensor: &Tensor, ty: TensorType, from: &[Option<usize>]) -> Tensor {
    let size = ty.dtype.bits() / 8;
    let mut data = Vec::with_capacity(from.len() * size);
    for source in from {
        match source {
            Some(i) => data.extend_from_slice(&tensor.bytes()[i * size..(i + 1) * size]),
            None => data.resize(data.len() + size, 0),
        }
    }
    Tensor::from_bytes(ty, data).expect("one element each was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panel_interleaves_rows_and_pads() {
        let t = Tensor::new([3, 3], &[1i8, 2, 3, 4, 5, 6, 7, 8, 9]);
        let p = Packing::Panel { rows: 2, depth: 2 }.apply(&t);
        assert_eq!(p.shape(), [2, 2, 2, 2]);
        assert_eq!(p.to_i64(), [1, 2, 4, 5, 3, 0, 6, 0, 7, 8, 0, 0, 9, 0, 0, 0]);
    }

    #[test]
    fn permute_transposes() {
        let t = Tensor::new([2, 3], &[1i32, 2, 3, 4, 5, 6]);
        let p = Packing::Permute(vec![1, 0]).apply(&t);
        assert_eq!(p.shape(), [3, 2]);
        assert_eq!(p.to_i64(), [1, 4, 2, 5, 3, 6]);
    }
}
