//! Implementations of heavy kernels.

use mcc_ir::catalogue::Implementation;

pub const CATALOGUE: &[Implementation] = &[];
