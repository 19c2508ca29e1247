//! Recurrent layers as nodes: the states are joined from the initial one, those of the steps, and the last cell state.

use super::Exporter;
use super::message::{float, floats, int, text, texts};
use super::ops::numbers;
use crate::error::{Fault, Result, code};
use crate::proto::Attribute;
use mcc_ir::op::{Cell, Recurrent, Unary};
use mcc_ir::ops::recurrent::Sizes;
use mcc_ir::{Tensor, TensorType, ValueId};

impl Exporter<'_> {
    /// Writes one direction of a recurrent layer and gives the name of all its states.
    pub(super) fn recurrent(&mut self, o: &Recurrent, own: &[ValueId]) -> Result<String> {
        let types: Vec<&TensorType> = own.iter().map(|v| self.graph.ty(*v)).collect();
        let Sizes { steps, batch, hidden, .. } = Sizes::of(&types);
        let (op_type, mut attributes) = match o.cell {
            Cell::Rnn => ("RNN", vec![]),
            Cell::Gru { linear_before_reset: true } => ("GRU", vec![int("linear_before_reset", 1)]),
            Cell::Gru { linear_before_reset: false } => {
                let help = "export the model with `linear_before_reset`, as PyTorch and Keras do";
                return Err(Fault::new(
                    code::EXPORT,
                    "a GRU that resets its state first shows more than the node gives",
                    help,
                ));
            }
            Cell::Lstm { input_forget, .. } => ("LSTM", vec![int("input_forget", input_forget as i64)]),
        };
        attributes.extend([int("hidden_size", hidden as i64)]);
        attributes.extend([text("direction", if o.reverse { "reverse" } else { "forward" })]);
        attributes.extend(o.clip.map(|clip| float("clip", clip.0)));
        if o.activations != o.cell.default_activations() {
            attributes.extend(activations(&o.activations)?);
        }
        let mut inputs = vec![self.name(own[0]), self.directed(own[1]), self.directed(own[2])];
        inputs.push(self.biases(o.cell, own[3], hidden));
        inputs.push(String::new());
        for v in &own[4..] {
            inputs.push(self.directed(*v));
        }
        let initial = inputs[5].clone();
        let y = self.emit(op_type, &inputs, attributes);
        let cell = matches!(o.cell, Cell::Lstm { .. }).then(|| self.further_output(2));
        let shape = self.list("shape", numbers(&[steps, batch, hidden]));
        let y = self.emit("Reshape", &[y, shape], vec![]);
        let mut parts = if o.reverse { vec![y, initial] } else { vec![initial, y] };
        parts.extend(cell);
        Ok(self.emit("Concat", &parts, vec![int("axis", 0)]))
    }

    /// An operand with a first dimension for its direction.
    fn directed(&mut self, v: ValueId) -> String {
        let shape = [&[1], self.graph.ty(v).shape.as_slice()].concat();
        let inputs = [self.name(v), self.list("shape", numbers(&shape))];
        self.emit("Reshape", &inputs, vec![])
    }

    /// The biases of input and state, of which one is 0 where the operator has their sum.
    fn biases(&mut self, cell: Cell, bias: ValueId, hidden: usize) -> String {
        let gates = cell.gates() * hidden;
        let mut parts = vec![self.name(bias)];
        let without = 2 * gates - cell.biases() * hidden;
        let zeros = self.constant("zeros", &Tensor::new([without], &vec![0f32; without]));
        if cell.biases() > cell.gates() {
            parts = [0, gates].map(|at| self.slice(bias, &[at], &[1], &[if at == 0 { gates } else { hidden }])).into();
        }
        parts.insert(1, zeros);
        let all = self.emit("Concat", &parts, vec![int("axis", 0)]);
        let shape = self.list("shape", numbers(&[1, 2 * gates]));
        self.emit("Reshape", &[all, shape], vec![])
    }
}

/// The functions of a layer as attributes.
fn activations(functions: &[Unary]) -> Result<Vec<Attribute>> {
    let (mut names, mut alphas, mut betas) = (vec![], vec![], vec![]);
    for function in functions {
        names.push(match function {
            Unary::Sigmoid => "Sigmoid",
            Unary::Tanh => "Tanh",
            Unary::Relu => "Relu",
            Unary::HardSigmoid(alpha, beta) => {
                alphas.push(alpha.0);
                betas.push(beta.0);
                "HardSigmoid"
            }
            Unary::LeakyRelu(alpha) => {
                alphas.push(alpha.0);
                "LeakyRelu"
            }
            Unary::Elu(alpha) => {
                alphas.push(alpha.0);
                "Elu"
            }
            Unary::Softsign => "Softsign",
            Unary::Softplus => "Softplus",
            other => {
                let reason = format!("{} is no activation of a recurrent layer in ONNX", other.name());
                return Err(Fault::new(code::EXPORT, reason, "use another function"));
            }
        });
    }
    let parameters = [("activation_alpha", alphas), ("activation_beta", betas)];
    let parameters = parameters.into_iter().filter(|p| !p.1.is_empty()).map(|(name, list)| floats(name, &list));
    Ok([texts("activations", &names)].into_iter().chain(parameters).collect())
}
