//! Values inside a graph, for one sample after the other.

use crate::error::Result;
use crate::{Model, Options};
use mcc_ir::Tensor;
use mcc_ir::graph::{Graph, ValueId};
use mcc_runtime::Session;
use std::collections::HashMap;

/// A graph compiled for this machine so that it shows some of its values.
pub struct Runner {
    session: Session,
    taps: Vec<ValueId>,
}

impl Runner {
    /// Compiles what the values need.
    ///
    /// # Errors
    /// Where an operator has no code on this machine.
    pub fn new(graph: &Graph, taps: &[ValueId]) -> Result<Runner> {
        let mut taps = taps.to_vec();
        taps.sort_unstable();
        taps.dedup();
        let mut shown = graph.clone();
        shown.outputs.clear();
        taps.iter().for_each(|v| shown.add_output(v.to_string(), *v));
        let session = Model::from_graph(shown, &Options::host())?.session()?;
        Ok(Runner { session, taps })
    }

    /// The values for one sample, as `f32`.
    ///
    /// # Errors
    /// Where the sample does not fit the graph.
    pub fn run(&mut self, sample: &[Tensor]) -> Result<HashMap<ValueId, Vec<f32>>> {
        let outputs = self.session.run_tensors(sample)?;
        Ok(self.taps.iter().copied().zip(outputs.iter().map(Tensor::to_f32)).collect())
    }
}
