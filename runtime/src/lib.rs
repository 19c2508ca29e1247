//! Execution of mcc plans on the host.
//!
//! [`Session`] owns the memory of a compiled model and runs it; it knows compiled code only as a [`CompiledCode`].
//! [`kernels`] holds the implementations of heavy kernels that compiled code calls, and [`CATALOGUE`] offers them to the
//! passes. This crate and the JIT are the only ones with unsafe code: here it is at the borders where pointers from
//! compiled code become slices.

pub mod cpu;
pub mod kernels;
pub mod memory;
pub mod session;
mod team;
pub mod tensors;

pub use cpu::{CpuError, Level};
pub use kernels::{CATALOGUE, Threads};
pub use memory::AlignedBytes;
pub use session::{CompiledCode, Layout, Place, Port, RunError, Session};
pub use tensors::{TensorMut, TensorRef};
