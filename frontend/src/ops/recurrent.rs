//! Recurrent layers. Each direction becomes one operator that gives all its states; the outputs are pieces of them.

use super::data::slice_of;
use crate::cx::Cx;
use crate::error::{Fault, Result, code, quote};
use crate::node::Node;
use mcc_ir::ValueId;
use mcc_ir::op::{Binary, Cell, Op, Recurrent, Unary};
use mcc_ir::ops::recurrent::Rows;
use mcc_ir::types::F32;

pub const RNN: &[&str] =
    &["activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout"];

pub const GRU: &[&str] = &[
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "layout",
    "linear_before_reset",
];

pub const LSTM: &[&str] = &[
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "input_forget",
    "layout",
];

pub fn rnn(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    layer(cx, n, Cell::Rnn)
}

pub fn gru(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let linear_before_reset = n.flag("linear_before_reset", false)?;
    layer(cx, n, Cell::Gru { linear_before_reset })
}

pub fn lstm(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (input_forget, peepholes) = (n.flag("input_forget", false)?, n.optional(7).is_some());
    layer(cx, n, Cell::Lstm { input_forget, peepholes })
}

/// Sizes of the node's tensors.
struct Sizes {
    steps: usize,
    batch: usize,
    hidden: usize,
    directions: usize,
}

fn layer(cx: &mut Cx, n: &Node, cell: Cell) -> Result<Vec<ValueId>> {
    let (x, r) = (cx.float(n, 0)?, cx.float(n, 2)?);
    cx.float(n, 1)?;
    let batch_first = n.flag("layout", false)?;
    let x = if batch_first { swap(cx, x, &[1, 0, 2], n)? } else { x };
    let reverse: &[bool] = match n.text_or("direction", "forward")? {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(Fault::node(format!("the direction {} does not exist", quote(other)))),
    };
    let (&[steps, batch, _], &[.., hidden]) = (cx.shape(x).as_slice(), cx.shape(r).as_slice()) else {
        return Err(Fault::node(format!("x is {} and R {}, not of 3 dimensions", cx.ty(x), cx.ty(r))));
    };
    if n.int("hidden_size")?.is_some_and(|size| usize::try_from(size) != Ok(hidden)) {
        return Err(Fault::node(format!("hidden_size does not fit R, which is {}", cx.ty(r))));
    }
    let sizes = Sizes { steps, batch, hidden, directions: reverse.len() };
    whole_sequences(cx, n, &sizes)?;
    let clip = n.float("clip")?.map(F32);
    let functions = activations(n, cell, reverse.len())?;
    let (mut y, mut y_h, mut y_c) = (vec![], vec![], vec![]);
    for (d, &reverse) in reverse.iter().enumerate() {
        let o = Recurrent { cell, reverse, activations: functions[d].clone(), clip };
        let rows = Rows::new(&o, steps);
        let inputs = direction(cx, n, x, cell, &sizes, d)?;
        let states = cx.add(Op::Recurrent(o), inputs, &n.origin)?;
        let mut piece = |first: usize, count: usize| {
            let shape = vec![count, batch, hidden];
            slice_of(cx, states, vec![first, 0, 0], vec![1; 3], shape, n)
        };
        y.push(piece(rows.first(), steps)?);
        y_h.push(piece(rows.at(steps - 1)[2], 1)?);
        if matches!(cell, Cell::Lstm { .. }) {
            y_c.push(piece(rows.extra(), 1)?);
        }
    }
    let y = {
        let each = y.into_iter().map(|y| cx.reshape(y, [steps, 1, batch, hidden], n)).collect::<Result<Vec<_>>>()?;
        let y = join(cx, each, 1, n)?;
        if batch_first { swap(cx, y, &[2, 0, 1, 3], n)? } else { y }
    };
    let mut outputs = vec![y];
    for last in [y_h, y_c].into_iter().filter(|list| !list.is_empty()) {
        let last = join(cx, last, 0, n)?;
        outputs.push(if batch_first { swap(cx, last, &[1, 0, 2], n)? } else { last });
    }
    Ok(outputs)
}

fn swap(cx: &mut Cx, v: ValueId, perm: &[usize], n: &Node) -> Result<ValueId> {
    match cx.rank(v) == perm.len() {
        true => cx.transpose(v, perm.to_vec(), n),
        false => Err(Fault::node(format!("{} is not of {} dimensions", cx.ty(v), perm.len()))),
    }
}

fn join(cx: &mut Cx, parts: Vec<ValueId>, axis: usize, n: &Node) -> Result<ValueId> {
    match parts.as_slice() {
        &[one] => Ok(one),
        _ => cx.add(Op::Concat { axis }, parts, &n.origin),
    }
}

/// Refuses sequences of different lengths, and lengths that are not known.
fn whole_sequences(cx: &Cx, n: &Node, sizes: &Sizes) -> Result<()> {
    let help = "leave `sequence_lens` out: every sequence then has the length of the input; shorten the input to it, or \
                export one step of the cell with the state as input and output";
    let Some(lengths) = n.optional(4) else { return Ok(()) };
    if cx.graph.constant(lengths).is_none() {
        return Err(Fault::new(code::NOT_CONSTANT, "`sequence_lens` is computed at run time", help));
    }
    let lengths = cx.ints(lengths, "`sequence_lens`")?;
    if lengths.len() != sizes.batch {
        return Err(Fault::node(format!("{} `sequence_lens` for a batch of {}", lengths.len(), sizes.batch)));
    }
    match lengths.iter().find(|&&length| length != sizes.steps as i64) {
        Some(length) => Err(Fault::form(format!("`sequence_lens` holds {length} for {} steps", sizes.steps), help)),
        None => Ok(()),
    }
}

/// The functions of each direction. Parameters are taken in order by the functions that have them.
fn activations(n: &Node, cell: Cell, directions: usize) -> Result<Vec<Vec<Unary>>> {
    let default = cell.default_activations();
    let Some(names) = n.texts("activations")? else { return Ok(vec![default.to_vec(); directions]) };
    if names.len() != directions * default.len() {
        let reason = format!("{} activations, not {} a direction", names.len(), default.len());
        return Err(Fault::node(reason));
    }
    let mut alphas = n.floats("activation_alpha")?.unwrap_or_default().iter();
    let mut betas = n.floats("activation_beta")?.unwrap_or_default().iter();
    let mut alpha = |default| F32(alphas.next().copied().unwrap_or(default));
    let mut beta = |default| F32(betas.next().copied().unwrap_or(default));
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        all.push(match name.to_ascii_lowercase().as_str() {
            "sigmoid" => Unary::Sigmoid,
            "tanh" => Unary::Tanh,
            "relu" => Unary::Relu,
            "hardsigmoid" => Unary::HardSigmoid(alpha(0.2), beta(0.5)),
            "leakyrelu" => Unary::LeakyRelu(alpha(0.01)),
            "elu" => Unary::Elu(alpha(1.0)),
            "softsign" => Unary::Softsign,
            "softplus" => Unary::Softplus,
            _ => {
                return Err(Fault::form(
                    format!("the activation {} of a recurrent layer is not supported", quote(name)),
                    "use Sigmoid, Tanh, Relu, HardSigmoid, LeakyRelu, Elu, Softsign or Softplus",
                ));
            }
        });
    }
    Ok(all.chunks(default.len()).map(<[Unary]>::to_vec).collect())
}

/// The inputs of the operator for one direction.
fn direction(cx: &mut Cx, n: &Node, x: ValueId, cell: Cell, sizes: &Sizes, d: usize) -> Result<Vec<ValueId>> {
    let &Sizes { batch, hidden, directions, .. } = sizes;
    let gates = cell.gates();
    // The part of an input that belongs to the direction, which is its first dimension.
    let part = |cx: &mut Cx, i: usize, rank: usize| -> Result<ValueId> {
        let v = cx.float(n, i)?;
        let shape = cx.shape(v);
        if shape.len() != rank || shape[0] != directions {
            return Err(Fault::node(format!("input {i} is {}, not one for each of {directions} directions", cx.ty(v))));
        }
        let (mut start, mut of) = (vec![0; rank], shape.clone());
        (start[0], of[0]) = (d, 1);
        let v = if directions == 1 { v } else { slice_of(cx, v, start, vec![1; rank], of, n)? };
        cx.reshape(v, shape[1..].to_vec(), n)
    };
    let mut inputs = vec![x, part(cx, 1, 3)?, part(cx, 2, 3)?];
    inputs.push(match n.optional(3) {
        Some(_) => {
            let b = part(cx, 3, 2)?;
            if cx.shape(b) != [2 * gates * hidden] {
                return Err(Fault::node(format!(
                    "the bias is {}, not of {} a direction",
                    cx.ty(b),
                    2 * gates * hidden
                )));
            }
            bias(cx, n, b, cell, hidden)?
        }
        None => zeros(cx, n, vec![cell.biases() * hidden])?,
    });
    let states = if matches!(cell, Cell::Lstm { .. }) { 2 } else { 1 };
    for i in (5..).take(states) {
        inputs.push(match n.optional(i) {
            Some(v) if n.flag("layout", false)? => {
                cx.float(n, i)?;
                let v = swap(cx, v, &[1, 0, 2], n)?;
                if cx.shape(v) != [directions, batch, hidden] {
                    return Err(Fault::node(format!("input {i} does not fit batch, directions and hidden size")));
                }
                let state = slice_of(cx, v, vec![d, 0, 0], vec![1; 3], vec![1, batch, hidden], n)?;
                cx.reshape(state, [batch, hidden], n)?
            }
            Some(_) => part(cx, i, 3)?,
            None => zeros(cx, n, vec![batch, hidden])?,
        });
    }
    if cell == (Cell::Lstm { peepholes: true, input_forget: n.flag("input_forget", false)? }) {
        inputs.push(part(cx, 7, 2)?);
    }
    Ok(inputs)
}

fn zeros(cx: &mut Cx, n: &Node, shape: Vec<usize>) -> Result<ValueId> {
    let zero = cx.scalar(0.0, n);
    cx.broadcast(zero, shape, n)
}

/// The biases of input and state added; apart for the candidate of a GRU that is reset after its product.
fn bias(cx: &mut Cx, n: &Node, b: ValueId, cell: Cell, hidden: usize) -> Result<ValueId> {
    let all = cell.gates() * hidden;
    let mut piece = |from: usize, count: usize| slice_of(cx, b, vec![from], vec![1], vec![count], n);
    if cell == (Cell::Gru { linear_before_reset: true }) {
        let (of_x, of_h) = (piece(0, 2 * hidden)?, piece(all, 2 * hidden)?);
        let candidate = [piece(2 * hidden, hidden)?, piece(all + 2 * hidden, hidden)?];
        let gates = cx.binary(Binary::Add, of_x, of_h, n)?;
        return join(cx, vec![gates, candidate[0], candidate[1]], 0, n);
    }
    let (of_x, of_h) = (piece(0, all)?, piece(all, all)?);
    cx.binary(Binary::Add, of_x, of_h, n)
}
