//! Recurrent layers: RNN, GRU and LSTM, one direction each.
//!
//! All states are rows of one output, and so each step finds those of the step before where that has stored them. The
//! sum of a gate starts from the bias, runs over the input and then over the state.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::math;
use crate::nest::{Expr, Index, Nest, NestBuilder, Reg, linear};
use crate::op::{Cell, Recurrent, Unary};
use crate::scalar::{BinOp, Eval, Scalars};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// The places of the inputs.
const X: usize = 0;
const W: usize = 1;
const R: usize = 2;
const B: usize = 3;
const H0: usize = 4;
const C0: usize = 5;
const P: usize = 6;

/// The sizes of a recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub steps: usize,
    pub batch: usize,
    pub input: usize,
    pub hidden: usize,
}

impl Sizes {
    /// Those of a layer whose types [`infer`] takes.
    pub fn of(inputs: &[&TensorType]) -> Sizes {
        let [steps, batch, input] = [0, 1, 2].map(|d| inputs[X].shape[d]);
        Sizes { steps, batch, input, hidden: inputs[R].shape[1] }
    }
}

/// The rows of the states, in the order of time.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    steps: usize,
    reverse: bool,
}

impl Rows {
    pub fn new(o: &Recurrent, steps: usize) -> Rows {
        Rows { steps, reverse: o.reverse }
    }

    /// The row of the initial state.
    pub fn initial(self) -> usize {
        if self.reverse { self.steps } else { 0 }
    }

    /// The row after all states: the cell state of an LSTM, what a GRU has reset.
    pub fn extra(self) -> usize {
        self.steps + 1
    }

    /// The first row of the states of all steps of x, which follow one another in the order of x.
    pub fn first(self) -> usize {
        if self.reverse { 0 } else { 1 }
    }

    /// Of the `t`-th step in time: its row in x, the row of the state before it, and the row of its own.
    pub fn at(self, t: usize) -> [usize; 3] {
        match self.reverse {
            false => [t, t, t + 1],
            true => [self.steps - 1 - t, self.steps - t, self.steps - 1 - t],
        }
    }

    fn at_index(self, t: &Index) -> [Index; 3] {
        let k = if self.reverse { -1 } else { 1 };
        self.at(0).map(|row| Index::constant(row as i64).plus_scaled(t, k))
    }
}

pub fn infer(o: &Recurrent, inputs: &[&TensorType]) -> Result<TensorType> {
    let op = o.cell.name();
    let gates = o.cell.gates();
    if let Some(ty) = inputs.iter().find(|t| t.dtype != DType::F32) {
        return Err(Error::ty(op, format!("does not take {}", ty.dtype)));
    }
    let (x, r) = (inputs[X], inputs[R]);
    let &[steps, batch, input] = x.shape.as_slice() else {
        return Err(Error::ty(op, format!("x is {x}, not of 3 dimensions: steps, batch, input")));
    };
    let hidden = match r.shape.as_slice() {
        &[rows, hidden] if Some(rows) == hidden.checked_mul(gates) => hidden,
        _ => return Err(Error::ty(op, format!("the recurrence weights {r} are not {gates} squares"))),
    };
    if [steps, batch, input, hidden].contains(&0) {
        return Err(Error::ty(op, format!("{x} or {r} is empty")));
    }
    let states = vec![batch, hidden];
    let expected = [
        (W, "weights", vec![gates * hidden, input]),
        (B, "bias", vec![o.cell.biases() * hidden]),
        (H0, "initial state", states.clone()),
        (C0, "initial cell state", states),
        (P, "peephole weights", vec![3 * hidden]),
    ];
    for (at, role, shape) in expected.into_iter().filter(|e| e.0 < inputs.len()) {
        if inputs[at].shape != shape {
            return Err(Error::ty(op, format!("the {role} are {}, not f32{shape:?}", inputs[at])));
        }
    }
    if o.activations.len() != o.cell.default_activations().len() || o.activations.contains(&Unary::Not) {
        return Err(Error::ty(op, format!("{} are its functions of floats", o.cell.default_activations().len())));
    }
    if o.clip.is_some_and(|c| c.0.is_nan() || c.0 < 0.0) {
        return Err(Error::ty(op, "clips to a negative threshold"));
    }
    Ok(TensorType::new(DType::F32, [steps + 1 + o.cell.has_extra_row() as usize, batch, hidden]))
}

/// A function of the cell, of a sum that is clipped before.
fn gate<S: Scalars>(s: &mut S, o: &Recurrent, function: usize, sum: S::V) -> S::V {
    let sum = match o.clip {
        Some(clip) => s.clamp_f(sum, -clip.0, clip.0),
        None => sum,
    };
    let sum = s.share(sum);
    let value = math::unary(s, o.activations[function], sum);
    s.share(value)
}

/// 1 - v.
fn rest<S: Scalars>(s: &mut S, v: S::V) -> S::V {
    let one = s.f32(1.0);
    s.bin(BinOp::SubF, one, v)
}

/// `a * b + c * d`, each operation rounded once.
fn blend<S: Scalars>(s: &mut S, [a, b, c, d]: [S::V; 4]) -> S::V {
    let (left, right) = (s.bin(BinOp::MulF, a, b), s.bin(BinOp::MulF, c, d));
    s.bin(BinOp::AddF, left, right)
}

/// Cell state and state of an LSTM from the sums of the gates i, o, f and c, the cell state before, and the peephole
/// weights of i, o and f.
fn lstm<S: Scalars>(s: &mut S, o: &Recurrent, sums: [S::V; 4], c: S::V, peepholes: Option<[S::V; 3]>) -> [S::V; 2] {
    let [i, out, f, g] = sums;
    let [pi, po, pf] = peepholes.map_or([None, None, None], |p| p.map(Some));
    let peep = |s: &mut S, sum: S::V, weight: Option<S::V>, c: S::V| match weight {
        Some(weight) => {
            let seen = s.bin(BinOp::MulF, weight, c);
            s.bin(BinOp::AddF, sum, seen)
        }
        None => sum,
    };
    let i = peep(s, i, pi, c.clone());
    let i = gate(s, o, 0, i);
    let f = if matches!(o.cell, Cell::Lstm { input_forget: true, .. }) {
        rest(s, i.clone())
    } else {
        let f = peep(s, f, pf, c.clone());
        gate(s, o, 0, f)
    };
    let g = gate(s, o, 1, g);
    let c = blend(s, [f, c, i, g]);
    let c = s.share(c);
    let out = peep(s, out, po, c.clone());
    let out = gate(s, o, 0, out);
    // The cell state itself is not clipped.
    let shown = math::unary(s, o.activations[2], c.clone());
    let h = s.bin(BinOp::MulF, out, shown);
    [c, h]
}

/// The state of a GRU from its update gate z, the sum of its candidate, and the state before.
fn gru<S: Scalars>(s: &mut S, o: &Recurrent, z: S::V, candidate: S::V, h: S::V) -> S::V {
    let candidate = gate(s, o, 1, candidate);
    let rest = rest(s, z.clone());
    blend(s, [rest, candidate, z, h])
}

/// The evaluation of one step for one sequence of the batch.
struct Step<'a> {
    x: &'a [f32],
    h: &'a [f32],
    inputs: &'a [Vec<f32>],
}

impl Step<'_> {
    fn row(&self, of: usize, row: usize) -> &[f32] {
        let length = if of == W { self.x.len() } else { self.h.len() };
        &self.inputs[of][row * length..][..length]
    }

    /// The sum of a row of weights for the input, and of one for `h` where there is one.
    fn sum(&self, row: usize, h: Option<&[f32]>) -> u32 {
        let products = |sum, weights: &[f32], v: &[f32]| weights.iter().zip(v).fold(sum, |s, (w, v)| s + v * w);
        let sum = products(self.inputs[B][row], self.row(W, row), self.x);
        h.map_or(sum, |h| products(sum, self.row(R, row), h)).to_bits()
    }
}

pub fn eval(o: &Recurrent, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let Sizes { steps, batch, input, hidden } = Sizes::of(&inputs.iter().map(|t| t.ty()).collect::<Vec<_>>());
    let inputs: Vec<Vec<f32>> = inputs.iter().map(|t| t.to_f32()).collect();
    let rows = Rows::new(o, steps);
    let mut states = vec![0f32; out.elements()];
    let place = |row: usize, n: usize| (row * batch + n) * hidden..(row * batch + n + 1) * hidden;
    for n in 0..batch {
        states[place(rows.initial(), n)].copy_from_slice(&inputs[H0][place(0, n)]);
        if matches!(o.cell, Cell::Lstm { .. }) {
            states[place(rows.extra(), n)].copy_from_slice(&inputs[C0][place(0, n)]);
        }
    }
    for (t, n) in (0..steps).flat_map(|t| (0..batch).map(move |n| (t, n))) {
        let [at, before, after] = rows.at(t);
        let h = states[place(before, n)].to_vec();
        let step = Step { x: &inputs[X][(at * batch + n) * input..][..input], h: &h, inputs: &inputs };
        let sums = |gate: usize| -> Vec<u32> { (0..hidden).map(|j| step.sum(gate * hidden + j, Some(&h))).collect() };
        let s = &mut Eval;
        let next: Vec<u32> = match o.cell {
            Cell::Rnn => sums(0).into_iter().map(|sum| gate(s, o, 0, sum)).collect(),
            Cell::Gru { linear_before_reset } => {
                let z: Vec<u32> = sums(0).into_iter().map(|sum| gate(s, o, 0, sum)).collect();
                let r: Vec<u32> = sums(1).into_iter().map(|sum| gate(s, o, 0, sum)).collect();
                let reset: Vec<f32> = r.iter().zip(&h).map(|(r, h)| f32::from_bits(*r) * h).collect();
                let candidate = |j: usize| match linear_before_reset {
                    true => {
                        let of_h = step.row(R, 2 * hidden + j).iter().zip(&h);
                        let of_h = of_h.fold(inputs[B][3 * hidden + j], |sum, (w, v)| sum + v * w);
                        (f32::from_bits(step.sum(2 * hidden + j, None)) + f32::from_bits(r[j]) * of_h).to_bits()
                    }
                    false => step.sum(2 * hidden + j, Some(&reset)),
                };
                let next = (0..hidden).map(|j| gru(s, o, z[j], candidate(j), h[j].to_bits())).collect();
                if !linear_before_reset {
                    states[place(rows.extra(), n)].copy_from_slice(&reset);
                }
                next
            }
            Cell::Lstm { peepholes, .. } => {
                let gates: Vec<Vec<u32>> = (0..4).map(sums).collect();
                let cells = place(rows.extra(), n);
                let mut next = Vec::with_capacity(hidden);
                for (j, c) in states[cells].iter_mut().enumerate() {
                    let weights = peepholes.then(|| [0, 1, 2].map(|g| inputs[P][g * hidden + j].to_bits()));
                    let [cell, h] = lstm(s, o, [0, 1, 2, 3].map(|g| gates[g][j]), c.to_bits(), weights);
                    *c = f32::from_bits(cell);
                    next.push(h);
                }
                next
            }
        };
        states[place(after, n)].iter_mut().zip(next).for_each(|(to, bits)| *to = f32::from_bits(bits));
    }
    Ok(Tensor::new(out.shape.clone(), &states))
}

/// The loops of one step for one sequence of the batch.
struct Loops<'a> {
    o: &'a Recurrent,
    sizes: Sizes,
    strides: Vec<usize>,
    rows: Rows,
    /// The row of x, that of the state before, that of the step's own, and the sequence in the batch.
    at: [Index; 3],
    n: Index,
}

impl Loops<'_> {
    /// The index of a unit in a row of states.
    fn state(&self, row: &Index, j: &Index) -> Index {
        linear(&[row.clone(), self.n.clone(), j.clone()], &self.strides)
    }

    fn extra(&self) -> Index {
        Index::constant(self.rows.extra() as i64)
    }

    fn biases<const N: usize>(&self, b: &mut NestBuilder, rows: [usize; N], j: &Index) -> [Reg; N] {
        rows.map(|row| {
            let bias = b.load(B, j.clone().offset((row * self.sizes.hidden) as i64));
            b.let_(bias)
        })
    }

    /// Adds to each sum the products of a gate's row of weights with one vector, which is read once.
    fn add_products(
        &self,
        b: &mut NestBuilder,
        sums: &[(Reg, usize)],
        weights: usize,
        j: &Index,
        vector: (usize, impl Fn(&Index) -> Index),
    ) {
        let length = b.arg(weights).shape[1];
        b.repeat(length, |b, k| {
            let value = b.load(vector.0, vector.1(&k));
            let value = b.share(value);
            for &(sum, gate) in sums {
                let row = j.clone().offset((gate * self.sizes.hidden) as i64);
                let weight = b.load(weights, Index::default().plus_scaled(&row, length as i64).plus_scaled(&k, 1));
                let product = b.bin(BinOp::MulF, value.clone(), weight);
                let next = b.bin(BinOp::AddF, Expr::Reg(sum), product);
                b.set(sum, next);
            }
        });
    }

    fn add_input(&self, b: &mut NestBuilder, sums: &[(Reg, usize)], j: &Index) {
        let strides = [self.sizes.batch * self.sizes.input, self.sizes.input, 1];
        let x = |k: &Index| linear(&[self.at[0].clone(), self.n.clone(), k.clone()], &strides);
        self.add_products(b, sums, W, j, (X, x));
    }

    fn add_states(&self, b: &mut NestBuilder, sums: &[(Reg, usize)], j: &Index, row: &Index) {
        let states = b.output();
        self.add_products(b, sums, R, j, (states, |k: &Index| self.state(row, k)));
    }

    fn step(&self, b: &mut NestBuilder) {
        let (o, states) = (self.o, b.output());
        let [_, before, after] = &self.at;
        if o.cell == (Cell::Gru { linear_before_reset: false }) {
            // Every unit's state is reset before the first candidate is computed.
            b.repeat(self.sizes.hidden, |b, j| {
                let [r] = self.biases(b, [1], &j);
                self.add_input(b, &[(r, 1)], &j);
                self.add_states(b, &[(r, 1)], &j, before);
                let r = gate(b, o, 0, Expr::Reg(r));
                let h = b.load(states, self.state(before, &j));
                let reset = b.bin(BinOp::MulF, r, h);
                b.store(self.state(&self.extra(), &j), reset);
            });
        }
        b.repeat(self.sizes.hidden, |b, j| {
            let h = self.unit(b, &j);
            b.store(self.state(after, &j), h);
        });
    }

    /// The next state of one unit.
    fn unit(&self, b: &mut NestBuilder, j: &Index) -> Expr {
        let (o, states) = (self.o, b.output());
        let before = &self.at[1];
        match o.cell {
            Cell::Rnn => {
                let [sum] = self.biases(b, [0], j);
                self.add_input(b, &[(sum, 0)], j);
                self.add_states(b, &[(sum, 0)], j, before);
                gate(b, o, 0, Expr::Reg(sum))
            }
            Cell::Gru { linear_before_reset: true } => {
                let [z, r, of_x, of_h] = self.biases(b, [0, 1, 2, 3], j);
                self.add_input(b, &[(z, 0), (r, 1), (of_x, 2)], j);
                self.add_states(b, &[(z, 0), (r, 1), (of_h, 2)], j, before);
                let r = gate(b, o, 0, Expr::Reg(r));
                let reset = b.bin(BinOp::MulF, r, Expr::Reg(of_h));
                let candidate = b.bin(BinOp::AddF, Expr::Reg(of_x), reset);
                let z = gate(b, o, 0, Expr::Reg(z));
                let h = b.load(states, self.state(before, j));
                gru(b, o, z, candidate, h)
            }
            Cell::Gru { linear_before_reset: false } => {
                let [z, candidate] = self.biases(b, [0, 2], j);
                self.add_input(b, &[(z, 0), (candidate, 2)], j);
                self.add_states(b, &[(z, 0)], j, before);
                self.add_states(b, &[(candidate, 2)], j, &self.extra());
                let z = gate(b, o, 0, Expr::Reg(z));
                let h = b.load(states, self.state(before, j));
                gru(b, o, z, Expr::Reg(candidate), h)
            }
            Cell::Lstm { peepholes, .. } => {
                let sums = self.biases(b, [0, 1, 2, 3], j);
                let all = [0, 1, 2, 3].map(|gate| (sums[gate], gate));
                self.add_input(b, &all, j);
                self.add_states(b, &all, j, before);
                let cell = self.state(&self.extra(), j);
                let weight = |gate: usize| b.load(P, j.clone().offset((gate * self.sizes.hidden) as i64));
                let weights = peepholes.then(|| [0, 1, 2].map(weight));
                let c = b.load(states, cell.clone());
                let c = b.share(c);
                let [c, h] = lstm(b, o, sums.map(Expr::Reg), c, weights);
                let h = b.share(h);
                b.store(cell, c);
                h
            }
        }
    }
}

pub fn nest(o: &Recurrent, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let sizes = Sizes::of(inputs);
    let rows = Rows::new(o, sizes.steps);
    let row = sizes.batch * sizes.hidden;
    let mut b = NestBuilder::new(inputs, out);
    let mut initial = vec![(H0, rows.initial())];
    if matches!(o.cell, Cell::Lstm { .. }) {
        initial.push((C0, rows.extra()));
    }
    for (from, to) in initial {
        b.repeat(row, |b, k| {
            let value = b.load(from, k.clone());
            b.store(k.offset((to * row) as i64), value);
        });
    }
    b.repeat(sizes.steps, |b, t| {
        b.repeat(sizes.batch, |b, n| {
            Loops { o, sizes, strides: out.strides(), rows, at: rows.at_index(&t), n }.step(b);
        });
    });
    Ok(b.finish())
}

#[cfg(test)]
mod tests;
