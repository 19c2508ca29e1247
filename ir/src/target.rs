//! Target descriptions: what a chip or core is, as data.

use crate::costs::CostTable;
use crate::error::{Error, Result};
use serde::Deserialize;

/// Which family of backend serves a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    C,
    Jit,
}

/// An instruction-set feature that kernels may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Armv7E-M DSP extension: SMLAD, SXTB16.
    Dsp,
    /// Single-precision floating-point unit.
    Fpu,
    /// Armv8.1-M vector extension (Helium).
    Mve,
}

/// A compilation target.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub name: String,
    #[serde(default)]
    pub aliases: Vec<String>,
    pub description: String,
    pub backend: Backend,
    /// The processor core, as GCC's `-mcpu` names it, or a RISC-V's `-march`; empty for portable C and the host.
    #[serde(default)]
    pub core: String,
    #[serde(default)]
    pub features: Vec<Feature>,
    /// Flash and RAM of the chip in bytes; absent for bare cores and the host.
    pub flash: Option<usize>,
    pub ram: Option<usize>,
    /// Clock in MHz, where the chip has one.
    pub mhz: Option<f64>,
    /// The name of the cost table; without one, all estimates are taken as they stand.
    #[serde(default)]
    pub costs: String,
    /// That table.
    #[serde(skip)]
    pub table: CostTable,
    /// Alignment of the arena and of every buffer in it, in bytes.
    pub alignment: usize,
}

impl Target {
    /// Parses a target description in TOML. Unknown fields are errors.
    ///
    /// # Errors
    /// [`Error::Target`] with the parser's message.
    pub fn parse(text: &str) -> Result<Target> {
        let target: Target = toml::from_str(text).map_err(|e| Error::Target(e.to_string()))?;
        if !target.alignment.is_power_of_two() {
            return Err(Error::Target(format!("{}: alignment {} is no power of two", target.name, target.alignment)));
        }
        Ok(target)
    }

    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}
