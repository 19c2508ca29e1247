//! The kernel catalogue: implementations that a target has beside the loop nest itself.
//!
//! An entry is data: what it needs of shapes and types, how it wants its constants packed, its working memory and its
//! cost. Passes choose an entry and pack for it; a backend prints the chosen id. The entries are listed by the room that
//! holds the code: `runtime` for the host, `backends::c` for microcontrollers.

use crate::costs::{Code, Work};
use crate::op::Op;
use crate::packing::Packing;
use crate::plan::Overlap;
use crate::target::Target;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// The implementation that every kernel has: its loop nest, printed as it is.
pub const NEST: &str = "nest";

/// Estimated cycles of a loop nest for each multiply-accumulate, or output element where there are more, on targets whose
/// table does not know nests: rather too many, so that a kernel is preferred.
pub const NEST_CYCLES: f64 = 14.0;

/// A kernel to be implemented.
#[derive(Clone, Copy, Debug)]
pub struct KernelSpec<'a> {
    pub op: &'a Op,
    pub arg_types: &'a [TensorType],
    /// The value of each argument that is a constant, in row-major order; its shape may be another than the argument's.
    pub consts: &'a [Option<&'a Tensor>],
    pub out_type: &'a TensorType,
}

/// What an implementation asks for and promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// One an argument.
    pub packings: Vec<Packing>,
    pub scratch_bytes: usize,
    /// What one run does; the target's [`crate::costs::CostTable`] makes cycles of it.
    pub work: Work,
    /// Its code; none where nobody counts it, as on the host.
    pub code: Code,
    /// How the output may overlap argument 0, if at all; in place only where the output is not larger.
    pub overlap: Option<Overlap>,
}

impl Offer {
    /// Bytes of the kernel's constants as they are packed.
    pub fn const_bytes(&self, spec: &KernelSpec<'_>) -> usize {
        let packed = |((packing, ty), value): ((&Packing, &TensorType), &Option<&Tensor>)| {
            if value.is_some() { packing.packed_type(ty).bytes() } else { 0 }
        };
        self.packings.iter().zip(spec.arg_types).zip(spec.consts).map(packed).sum()
    }
}

/// An entry of a catalogue.
#[derive(Clone, Copy)]
pub struct Implementation {
    pub id: &'static str,
    /// `None` where the kernel is not one it implements on this target.
    pub offer: fn(&KernelSpec<'_>, &Target) -> Option<Offer>,
}
