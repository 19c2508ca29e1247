//! The kernel catalogue: implementations that a target has beside the loop nest itself.
//!
//! An entry is data: what it needs of shapes and types, how it wants its constants packed, its working memory and its
//! cost. Passes choose an entry and pack for it; a backend prints the chosen id. The entries are listed by the room that
//! holds the code: `runtime` for the host, `backends::c` for microcontrollers.

use crate::op::Op;
use crate::packing::Packing;
use crate::target::Target;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// The implementation that every kernel has: its loop nest, printed as it is.
pub const NEST: &str = "nest";

/// Estimated cycles of a loop nest for each multiply-accumulate, or output element where there are more.
pub const NEST_CYCLES: f64 = 10.0;

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
    /// Estimated cycles of one run on the target, to be compared with [`NEST_CYCLES`].
    pub cycles: f64,
    /// Whether the output may take over argument 0 in place; their types then have one shape and size.
    pub in_place: bool,
}

/// An entry of a catalogue.
#[derive(Clone, Copy)]
pub struct Implementation {
    pub id: &'static str,
    /// `None` where the kernel is not one it implements on this target.
    pub offer: fn(&KernelSpec<'_>, &Target) -> Option<Offer>,
}
