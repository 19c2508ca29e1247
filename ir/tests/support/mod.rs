//! What the tests of operators share: running one operator by evaluator and loop nest, and random tensors.

use mcc_ir::op::Op;
use mcc_ir::{DType, Error, Tensor, TensorType, nest, ops};

/// Evaluates an operator, runs its loop nest where there is one, and holds them against each other.
pub fn run(op: &Op, inputs: &[&Tensor]) -> Tensor {
    let types: Vec<&TensorType> = inputs.iter().map(|t| t.ty()).collect();
    let out = ops::infer(op, &types).unwrap_or_else(|e| panic!("{op:?} on {types:?}: {e}"));
    let expected = ops::eval(op, inputs, &out).unwrap();
    assert_eq!(expected.ty(), &out);
    match ops::nest(op, &types, &out) {
        Ok(nest) => {
            nest::verify::verify(&nest).unwrap_or_else(|e| panic!("{op:?} on {types:?}: {e}"));
            let got = nest::run::run_on(&nest, inputs);
            assert!(got == expected, "{op:?} on {types:?}: {:?} != {:?}", got.to_f64(), expected.to_f64());
        }
        Err(e) => {
            let no_nest = |t: &TensorType| t.dtype == DType::I64 || !t.dtype.is_byte_sized();
            assert!(matches!(e, Error::Unsupported { .. }) && types.iter().any(|t| no_nest(t)), "{op:?}: {e}");
        }
    }
    expected
}

/// The reason for which type inference refuses an operator.
pub fn refused(op: &Op, inputs: &[&TensorType]) -> String {
    match ops::infer(op, inputs) {
        Err(Error::Type { op: name, reason }) if name == op.name() => reason,
        other => panic!("{op:?} on {inputs:?}: {other:?}"),
    }
}

/// Pseudo-random words (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Elements over the whole range of the type; 16-bit floats are small integers.
    pub fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let ty = TensorType::new(dtype, shape);
        let values: Vec<i64> = (0..ty.elements()).map(|_| self.next() as i64).collect();
        match dtype {
            DType::F32 => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect();
                Tensor::from_bytes(ty, bytes).unwrap()
            }
            DType::F16 | DType::BF16 => Tensor::from_i64(ty, &values.iter().map(|v| v % 128).collect::<Vec<_>>()),
            DType::Bool => Tensor::from_i64(ty, &values.iter().map(|v| v & 1).collect::<Vec<_>>()),
            DType::T2 => Tensor::from_i64(ty, &values.iter().map(|v| v % 2).collect::<Vec<_>>()),
            _ => Tensor::from_i64(ty, &values),
        }
    }
}
