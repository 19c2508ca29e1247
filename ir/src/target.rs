//! Target descriptions: what a chip or core is, as data.

use crate::costs::CostTable;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

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

/// What a memory of a chip can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryKind {
    /// Arenas, and constants that are copied there at start-up.
    Ram,
    /// Constants and code.
    Flash,
    /// RAM for instructions: nothing of a plan is placed there.
    Code,
}

/// A memory of a chip.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub name: String,
    pub kind: MemoryKind,
    pub bytes: usize,
    /// Cycles of the core that a read waits, at the clock of the target and without a cache.
    #[serde(default)]
    pub wait: u32,
    /// The linker section that puts an object there; empty where the usual sections do.
    #[serde(default)]
    pub section: String,
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
    /// Flash and RAM of the chip in bytes, over all memories; absent for bare cores and the host.
    pub flash: Option<usize>,
    pub ram: Option<usize>,
    /// The chip's memories, the RAM in the order in which arenas should take it: the fastest first. A file that gives
    /// `flash` and `ram` alone has one memory of each.
    #[serde(default, rename = "memory")]
    pub memories: Vec<Memory>,
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
    /// [`Error::Target`] with the parser's message, or what is wrong with the alignment or the memories.
    pub fn parse(text: &str) -> Result<Target> {
        let mut target: Target = toml::from_str(text).map_err(|e| Error::Target(e.to_string()))?;
        let fault = |what: String| Err(Error::Target(format!("{}: {what}", target.name)));
        if !target.alignment.is_power_of_two() {
            return fault(format!("alignment {} is no power of two", target.alignment));
        }
        if target.memories.is_empty() {
            let one = |name: &str, kind, bytes: Option<usize>| {
                bytes.map(|bytes| Memory { name: name.into(), kind, bytes, wait: 0, section: String::new() })
            };
            let all = [one("ram", MemoryKind::Ram, target.ram), one("flash", MemoryKind::Flash, target.flash)];
            target.memories = all.into_iter().flatten().collect();
            return Ok(target);
        }
        if target.ram.or(target.flash).is_some() {
            return fault("`ram` and `flash` are the sums of its memories, and not given beside them".into());
        }
        for (i, memory) in target.memories.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if memory.name.is_empty() || !memory.name.chars().all(plain) {
                return fault(format!("memory {:?}: a name is of small letters, digits and dashes", memory.name));
            }
            if !memory.section.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
                return fault(format!("memory {}: {:?} names no section", memory.name, memory.section));
            }
            if target.memories[..i].iter().any(|m| m.name == memory.name) {
                return fault(format!("two memories are named {}", memory.name));
            }
        }
        target.sum_memories();
        Ok(target)
    }

    fn sum_memories(&mut self) {
        let sum = |kind| {
            let all = self.memories.iter().filter(|m| m.kind == kind).map(|m| m.bytes);
            all.fold(None, |sum: Option<usize>, bytes| Some(sum.unwrap_or(0).saturating_add(bytes)))
        };
        (self.ram, self.flash) = (sum(MemoryKind::Ram), sum(MemoryKind::Flash));
    }

    /// The memories of a kind, in the order of the description.
    pub fn memories_of(&self, kind: MemoryKind) -> impl Iterator<Item = &Memory> {
        self.memories.iter().filter(move |m| m.kind == kind)
    }

    /// The same target with no other RAM than the named memories, to be used in this order.
    ///
    /// # Errors
    /// [`Error::Target`] where a name is none of its RAM, or given twice.
    pub fn with_ram(&self, names: &[String]) -> Result<Target> {
        let mut target = self.clone();
        target.memories.retain(|m| m.kind != MemoryKind::Ram);
        for (i, name) in names.iter().enumerate() {
            let found = self.memories_of(MemoryKind::Ram).find(|m| m.name == *name).ok_or_else(|| {
                let known: Vec<&str> = self.memories_of(MemoryKind::Ram).map(|m| m.name.as_str()).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                Error::Target(format!("{} has no RAM named `{name}`; it has {known}", self.name))
            })?;
            if names[..i].contains(name) {
                return Err(Error::Target(format!("the memory {name} is named twice")));
            }
            target.memories.insert(i, found.clone());
        }
        target.sum_memories();
        Ok(target)
    }

    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHIP: &str = "name = 'chip'\ndescription = ''\nbackend = 'c'\nalignment = 8\n";

    fn memory(name: &str, kind: &str, bytes: usize) -> String {
        format!("[[memory]]\nname = '{name}'\nkind = '{kind}'\nbytes = {bytes}\n")
    }

    #[test]
    fn memories_add_up_and_can_be_chosen() {
        let text =
            CHIP.to_string() + &memory("tcm", "ram", 16) + &memory("sram", "ram", 64) + &memory("rom", "flash", 9);
        let chip = Target::parse(&text).unwrap();
        assert_eq!((chip.ram, chip.flash), (Some(80), Some(9)));
        let chosen = chip.with_ram(&["sram".into(), "tcm".into()]).unwrap();
        assert_eq!(chosen.memories.iter().map(|m| m.bytes).collect::<Vec<_>>(), [64, 16, 9]);
        let one = chip.with_ram(&["tcm".into()]).unwrap();
        assert_eq!((one.ram, one.flash), (Some(16), Some(9)));
        for names in [vec!["rom".to_string()], vec!["tcm".into(), "tcm".into()]] {
            assert!(matches!(chip.with_ram(&names), Err(Error::Target(_))), "{names:?}");
        }
    }

    #[test]
    fn totals_alone_are_one_memory_of_each() {
        let chip = Target::parse(&(CHIP.to_string() + "flash = 100\nram = 50")).unwrap();
        assert_eq!(chip.memories_of(MemoryKind::Ram).map(|m| m.bytes).collect::<Vec<_>>(), [50]);
        let core = Target::parse(CHIP).unwrap();
        assert!(core.memories.is_empty() && core.ram.is_none());
    }

    #[test]
    fn senseless_memories_are_refused() {
        let twice = memory("a", "ram", 1) + &memory("a", "flash", 1);
        let both = "ram = 5\n".to_string() + &memory("a", "ram", 1);
        let section = memory("a", "ram", 1) + "section = 'a\"b'";
        for text in [twice, both, section, memory("A b", "ram", 1), memory("", "ram", 1)] {
            assert!(matches!(Target::parse(&(CHIP.to_string() + &text)), Err(Error::Target(_))), "{text}");
        }
    }
}
