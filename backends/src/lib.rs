//! Code generation for mcc: each backend prints a Plan and holds no choice of its own.

pub mod c;
pub mod jit;
pub mod targets;
