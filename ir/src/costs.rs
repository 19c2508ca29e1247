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

/// Bytes of code that an implementation takes: its own, and functions that it shares with others by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Code {
    pub own: usize,
    pub shared: Vec<(Cow<'static, str>, usize)>,
}

impl Code {
    pub fn own(own: usize) -> Code {
        Code { own, shared: vec![] }
    }

    /// This code with a function that all implementations which name it have only once.
    pub fn sharing(mut self, name: impl Into<Cow<'static, str>>, bytes: usize) -> Code {
        self.shared.push((name.into(), bytes));
        self
    }
}

/// What one of each count takes, by implementation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct CostTable {
    kernels: BTreeMap<String, BTreeMap<String, f64>>,
}

impl CostTable {
    /// Parses a table in TOML: a section for each implementation, a number for each of its counts.
    ///
    /// # Errors
    /// [`Error::Target`] with the parser's message.
    pub fn parse(text: &str) -> Result<CostTable> {
        toml::from_str(text).map_err(|e| Error::Target(e.to_string()))
    }

    /// Sets what one of a count takes.
    pub fn set(&mut self, implementation: &str, count: &str, value: f64) {
        self.kernels.entry(implementation.into()).or_default().insert(count.into(), value);
    }

    /// Whether an implementation was measured.
    pub fn has(&self, implementation: &str) -> bool {
        self.kernels.contains_key(implementation)
    }

    /// The table's numbers, by implementation and count.
    pub fn kernels(&self) -> &BTreeMap<String, BTreeMap<String, f64>> {
        &self.kernels
    }

    /// What some work takes. A count that the table does not have is taken as it stands.
    pub fn cycles(&self, implementation: &str, work: &Work) -> f64 {
        let row = self.kernels.get(implementation);
        work.0.iter().map(|(name, n)| n * row.and_then(|row| row.get(*name)).copied().unwrap_or(1.0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_weighed_by_the_table() {
        let table = CostTable::parse("[gemm]\npairs = 2.5\ncalls = 0").unwrap();
        let work = Work::cycles(7.0).and("pairs", 10.0).and("calls", 1e6).and("pairs", 2.0);
        assert_eq!(table.cycles("gemm", &work), 7.0 + 30.0);
        assert_eq!(table.cycles("other", &work), 7.0 + 12.0 + 1e6);
        assert!(table.has("gemm") && !table.has("other"));
        assert!(CostTable::parse("gemm = 1").is_err());
    }
}
