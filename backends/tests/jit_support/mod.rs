//! Plans of one kernel, and comparisons.
#![allow(dead_code, reason = "each test file uses its part")]

use mcc_ir::catalogue::{Implementation, KernelSpec, NEST};
use mcc_ir::graph::origin;
use mcc_ir::nest::Nest;
use mcc_ir::op::{Conv2d, Layout, Step};
use mcc_ir::packing::Packing;
use mcc_ir::plan::{Arena, Arg, Bounds, Buffer, BufferId, BufferKind, ConstId, Kernel, Plan, PlanConst, PlanPort};
use mcc_ir::{DType, Op, Target, Tensor, TensorType, ops};

/// An operand of the one kernel.
pub enum Operand {
    Input(Tensor),
    Const(Tensor),
}

impl Operand {
    pub fn tensor(&self) -> &Tensor {
        match self {
            Operand::Input(t) | Operand::Const(t) => t,
        }
    }
}

/// A 3x3 convolution, NHWC, whose output has the size of its input.
pub fn same_conv(post: Vec<Step>) -> Op {
    Op::Conv2d(Conv2d {
        layout: Layout::Nhwc,
        stride: [1, 1],
        pad: [1; 4],
        dilation: [1, 1],
        groups: 1,
        pad_value: 0,
        bias: false,
        post,
    })
}

pub fn host() -> Target {
    let text = "name = \"test\"\ndescription = \"test\"\nbackend = \"jit\"\nalignment = 64\n";
    Target::parse(text).expect("a valid description")
}

/// A plan of one kernel by its nest. With `inside`, inputs and output are in the arena, else with the caller.
pub fn nest_plan(op: &Op, operands: &[Operand], nest: Nest, inside: bool) -> Plan {
    let mut plan = Plan {
        name: "one".into(),
        buffers: vec![],
        consts: vec![],
        kernels: vec![],
        inputs: vec![],
        outputs: vec![],
        arena_bytes: 0,
        arenas: Arena::whole(),
        alignment: 64,
        bounds: Bounds::default(),
    };
    let mut args = Vec::new();
    for operand in operands {
        match operand {
            Operand::Input(t) => {
                let index = plan.inputs.len();
                let buffer = add_buffer(&mut plan, BufferKind::Input(index), t.ty().bytes(), inside);
                let name = format!("in{index}");
                plan.inputs.push(PlanPort { name, ty: t.ty().clone(), quant: None, buffer });
                args.push(Arg::Buffer(buffer));
            }
            Operand::Const(t) => args.push(Arg::Const(add_const(&mut plan, t, Packing::None))),
        }
    }
    let tables = nest.tables.iter().map(|t| add_const(&mut plan, t, Packing::None)).collect();
    let out_type = nest.args[nest.output()].clone();
    let out = add_buffer(&mut plan, BufferKind::Output(0), out_type.bytes(), inside);
    plan.outputs.push(PlanPort { name: "out".into(), ty: out_type.clone(), quant: None, buffer: out });
    plan.kernels.push(Kernel {
        op: op.clone(),
        args,
        arg_types: operands.iter().map(|o| o.tensor().ty().clone()).collect(),
        out,
        out_type,
        nest,
        tables,
        implementation: NEST,
        scratch: None,
        macs: 0,
        cycles: 0.0,
        origin: origin("node"),
    });
    plan
}

pub fn add_buffer(plan: &mut Plan, kind: BufferKind, bytes: usize, inside: bool) -> BufferId {
    let offset = inside.then(|| plan.arena_bytes.next_multiple_of(64));
    if let Some(at) = offset {
        plan.arena_bytes = at + bytes;
    }
    plan.buffers.push(Buffer {
        kind,
        bytes,
        offset,
        first: 0,
        last: 0,
        over: None,
        within: None,
        origin: origin("buffer"),
    });
    BufferId(plan.buffers.len() as u32 - 1)
}

fn add_const(plan: &mut Plan, tensor: &Tensor, packing: Packing) -> ConstId {
    plan.consts.push(PlanConst { tensor: tensor.clone(), packing, memory: None, origin: origin("const") });
    ConstId(plan.consts.len() as u32 - 1)
}

pub fn types(operands: &[Operand]) -> Vec<&TensorType> {
    operands.iter().map(|o| o.tensor().ty()).collect()
}

pub fn inputs(operands: &[Operand]) -> Vec<Tensor> {
    let input = |o: &Operand| match o {
        Operand::Input(t) => Some(t.clone()),
        Operand::Const(_) => None,
    };
    operands.iter().filter_map(input).collect()
}

/// A plan of one operator by its nest.
pub fn op_plan(op: &Op, operands: &[Operand], inside: bool) -> Plan {
    let types = types(operands);
    let out = ops::infer(op, &types).expect("a valid operator");
    let nest = ops::nest(op, &types, &out).expect("an operator with a nest");
    nest_plan(op, operands, nest, inside)
}

/// The same plan under an implementation of the catalogue; `None` where that does not offer itself.
pub fn implement(mut plan: Plan, implementation: &Implementation) -> Option<Plan> {
    let kernel = &plan.kernels[0];
    let consts = plan.constants(kernel);
    let spec = KernelSpec { op: &kernel.op, arg_types: &kernel.arg_types, consts: &consts, out_type: &kernel.out_type };
    let offer = (implementation.offer)(&spec, &host())?;
    assert_eq!(offer.packings.len(), kernel.args.len(), "{} packs every argument", implementation.id);
    for (arg, packing) in kernel.args.clone().into_iter().zip(offer.packings) {
        match arg {
            Arg::Const(c) => plan.consts[c.index()].packing = packing,
            Arg::Buffer(_) => assert_eq!(packing, Packing::None, "{} packs a buffer", implementation.id),
        }
    }
    plan.kernels[0].implementation = implementation.id;
    if offer.scratch_bytes > 0 {
        plan.kernels[0].scratch = Some(add_buffer(&mut plan, BufferKind::Scratch, offer.scratch_bytes, true));
    }
    Some(plan)
}

/// The reference result.
pub fn expected(op: &Op, operands: &[Operand]) -> Tensor {
    let out = ops::infer(op, &types(operands)).expect("a valid operator");
    let tensors: Vec<&Tensor> = operands.iter().map(Operand::tensor).collect();
    ops::eval(op, &tensors, &out).expect("an operator with an evaluation")
}

/// The first element that differs by its bits; all NaN are one.
pub fn difference(a: &Tensor, b: &Tensor) -> Option<String> {
    assert_eq!(a.ty(), b.ty());
    let same = |x: f64, y: f64| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    let pairs = a.to_f64().into_iter().zip(b.to_f64());
    pairs.enumerate().find(|(_, (x, y))| !same(*x, *y)).map(|(i, (x, y))| format!("element {i} is {x}, not {y}"))
}

/// The largest difference over the largest magnitude of `b`.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.ty(), b.ty());
    let b = b.to_f64();
    let scale = b.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    a.to_f64().iter().zip(&b).fold(0f64, |m, (x, y)| m.max((x - y).abs())) / scale
}

/// Reproducible values: floats in about -1..1, integers over their whole range.
pub fn random(ty: &TensorType, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let n = ty.elements();
    if ty.dtype.is_float() {
        let values: Vec<f64> = (0..n).map(|_| (next() >> 40) as f64 / (1 << 23) as f64 - 1.0).collect();
        return Tensor::from_f64(ty.clone(), &values);
    }
    let (lo, hi) = if ty.dtype == DType::I32 { (-70000, 70000) } else { ty.dtype.int_range().unwrap_or((-9, 9)) };
    let span = (hi as i64 - lo as i64 + 1) as u64;
    Tensor::from_i64(ty.clone(), &(0..n).map(|_| (next() % span) as i64 + lo as i64).collect::<Vec<_>>())
}
