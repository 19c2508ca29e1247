//! The targets that mcc knows: the files of `backends/targets`, embedded.

use mcc_ir::Target;
use mcc_ir::costs::CostTable;
use std::sync::LazyLock;

const FILES: [&str; 14] = [
    include_str!("../targets/generic-c.toml"),
    include_str!("../targets/cortex-m0.toml"),
    include_str!("../targets/cortex-m4.toml"),
    include_str!("../targets/cortex-m7.toml"),
    include_str!("../targets/cortex-m33.toml"),
    include_str!("../targets/cortex-m55.toml"),
    include_str!("../targets/riscv32imc.toml"),
    include_str!("../targets/stm32f4.toml"),
    include_str!("../targets/stm32f407.toml"),
    include_str!("../targets/stm32f7.toml"),
    include_str!("../targets/stm32h7.toml"),
    include_str!("../targets/stm32u5.toml"),
    include_str!("../targets/esp32c3.toml"),
    include_str!("../targets/host.toml"),
];

/// The cost tables, by the core that was measured.
const TABLES: [(&str, &str); 4] = [
    ("cortex-m0", include_str!("../costs/cortex-m0.toml")),
    ("cortex-m4", include_str!("../costs/cortex-m4.toml")),
    ("cortex-m55", include_str!("../costs/cortex-m55.toml")),
    ("riscv32imc", include_str!("../costs/riscv32imc.toml")),
];

static ALL: LazyLock<Vec<Target>> = LazyLock::new(|| {
    FILES.iter().map(|text| with_table(Target::parse(text).expect("the embedded targets are tested"))).collect()
});

/// A target with the cost table that it names, if there is one of that name.
fn with_table(mut target: Target) -> Target {
    if let Some((_, text)) = TABLES.iter().find(|(name, _)| *name == target.costs) {
        target.table = CostTable::parse(text).expect("the embedded tables are tested");
    }
    target
}

/// A target that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no target `{name}`; the targets are {}", .known.join(", "))]
pub struct UnknownTarget {
    pub name: String,
    /// Every target's name, in the order of [`all`].
    pub known: Vec<String>,
}

impl UnknownTarget {
    /// The stable code shown to users.
    pub fn code(&self) -> &'static str {
        "E0410"
    }
}

/// Every target, portable ones first.
pub fn all() -> &'static [Target] {
    &ALL
}

/// The target with this name or alias.
///
/// # Errors
/// Where there is none; the error lists all names.
pub fn find(name: &str) -> Result<&'static Target, UnknownTarget> {
    all()
        .iter()
        .find(|t| t.name == name || t.aliases.iter().any(|a| a == name))
        .ok_or_else(|| UnknownTarget { name: name.into(), known: all().iter().map(|t| t.name.clone()).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::target::Backend;
    use std::collections::HashSet;

    #[test]
    fn names_and_aliases_are_unique_and_found() {
        let mut seen = HashSet::new();
        for t in all() {
            for name in t.aliases.iter().chain([&t.name]) {
                assert!(seen.insert(name.as_str()), "{name} twice");
                assert_eq!(find(name).unwrap().name, t.name);
            }
        }
    }

    #[test]
    fn every_file_is_embedded_under_its_name() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/targets");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|f| f.unwrap().path().file_stem().unwrap().to_str().unwrap().into())
            .collect();
        let mut names: Vec<String> = all().iter().map(|t| t.name.clone()).collect();
        files.sort();
        names.sort();
        assert_eq!(files, names);
    }

    /// Estimates of kernels are counts, which mean nothing without a table.
    #[test]
    fn every_target_of_the_c_backend_has_a_cost_table() {
        for t in all().iter().filter(|t| t.backend == Backend::C) {
            assert!(TABLES.iter().any(|(name, _)| *name == t.costs), "{}: no table `{}`", t.name, t.costs);
        }
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        let e = find("z80").unwrap_err();
        assert!(e.to_string().contains("cortex-m4") && e.to_string().contains("z80"));
    }
}
