//! What implementations cost: each states its work as named counts, and a table says what one of each takes on a core.
//!
//! Tables are fitted from measurements (`mcc targets --fit`) and are data of the targets. Their unit is the cycle of a core
//! without wait states, or the instruction where cycles are not known.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The count that is in the table's unit as it stands: an estimate that nobody has fitted.
pub const CYCLES: &str = "cycles";

/// What an implementation does in one run, as counts by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work(Vec<(&'static str, f64)>);

impl Work {
    /// An estimate in the unit of the table, for what was not measured.
    pub fn cycles(n: f64) -> Work {
        Work::default().and(CYCLES, n)
    }

    /// This work with `n` more of a count.
    pub fn and(mut self, name: &'static str, n: f64) -> Work {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, count)) => *count += n,
            None => self.0.push((name, n)),
        }
        self
    }

    pub fn counts(&self) -> &[(&'static str, f64)] {
        &self.0
    }
}

/// The code that an implementation takes: its own, and functions that it shares with others. Sizes are counts, too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Code {
    pub own: Work,
    pub shared: Vec<Function>,
}

/// A function that all implementations which name it have only once.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub name: Cow<'static, str>,
    /// What the table calls functions of its kind.
    pub kind: &'static str,
    pub size: Work,
}

impl Code {
    pub fn own(own: Work) -> Code {
        Code { own, shared: vec![] }
    }

    /// Code of so many bytes, for what was not measured.
    pub fn bytes(own: usize) -> Code {
        Code::own(Work::default().and("bytes", own as f64))
    }

    /// This code with a function of one size.
    pub fn sharing(self, name: &'static str) -> Code {
        self.sharing_one(name.into(), name, Work::default().and("functions", 1.0))
    }

    /// This code with a function of a kind.
    pub fn sharing_one(mut self, name: Cow<'static, str>, kind: &'static str, size: Work) -> Code {
        self.shared.push(Function { name, kind, size });
        self
    }
}

/// What a table counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Cycles of a core without wait states.
    #[default]
    Cycles,
    Instructions,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Cycles => "cycles",
            Unit::Instructions => "instructions",
        }
    }
}

/// What one of each count takes, by implementation or kind of function.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostTable {
    #[serde(default)]
    pub unit: Unit,
    /// Cycles or instructions of a run.
    #[serde(default)]
    pub cycles: Rates,
    /// Bytes of an implementation's own code.
    #[serde(default)]
    pub code: Rates,
    /// Bytes of shared functions.
    #[serde(default)]
    pub functions: Rates,
}

/// Numbers by name and count.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Rates(pub BTreeMap<String, BTreeMap<String, f64>>);

impl Rates {
    /// Sets what one of a count takes.
    pub fn set(&mut self, name: &str, count: &str, value: f64) {
        self.0.entry(name.into()).or_default().insert(count.into(), value);
    }

    /// Whether there is a number for this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What some work takes. A count that is not in the table is taken as it stands.
    pub fn of(&self, name: &str, work: &Work) -> f64 {
        let row = self.0.get(name);
        work.0.iter().map(|(count, n)| n * row.and_then(|row| row.get(*count)).copied().unwrap_or(1.0)).sum()
    }
}

impl CostTable {
    /// Parses a table in TOML: `[cycles.IMPLEMENTATION]`, `[code.IMPLEMENTATION]` and `[functions.KIND]`, each with a number
    /// for every count.
    ///
    /// # Errors
    /// [`Error::Target`] with the parser's message.
    pub fn parse(text: &str) -> Result<CostTable> {
        toml::from_str(text).map_err(|e| Error::Target(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_weighed_by_the_table() {
        let table = CostTable::parse("[cycles.gemm]\npairs = 2.5\ncalls = 0").unwrap();
        let work = Work::cycles(7.0).and("pairs", 10.0).and("calls", 1e6).and("pairs", 2.0);
        assert_eq!(table.cycles.of("gemm", &work), 7.0 + 30.0);
        assert_eq!(table.cycles.of("other", &work), 7.0 + 12.0 + 1e6);
        assert!(table.cycles.has("gemm") && !table.code.has("gemm"));
        assert!(CostTable::parse("gemm = 1").is_err());
    }
}
