//! A small valid plan, and what is wrong after each way to break it.

use super::*;
use crate::graph::origin;
use crate::nest::{Index, Stmt};
use crate::op::*;
use crate::plan::{Arena, Bounds, Over, Overlap, PlanConst, Within};
use crate::tensor::Tensor;
use crate::types::{F32, QuantParams};
use crate::{DType, plan};

/// `x -> matmul by k0 -> b1 -> relu, in place -> b2 -> pad by table-free edge mode, with scratch b3 -> y`.
fn valid() -> Plan {
    let ty = |shape: &[usize]| TensorType::new(DType::F32, shape);
    let kernel = |op: Op, args: Vec<Arg>, types: &[TensorType], out: u32, name: &str| {
        let types: Vec<&TensorType> = types.iter().collect();
        let out_type = ops::infer(&op, &types).unwrap();
        Kernel {
            nest: ops::nest(&op, &types, &out_type).unwrap(),
            macs: ops::macs(&op, &types, &out_type),
            cycles: 0.0,
            arg_types: types.into_iter().cloned().collect(),
            op,
            args,
            out: BufferId(out),
            out_type,
            tables: vec![],
            implementation: crate::catalogue::NEST,
            scratch: None,
            origin: origin(name),
        }
    };
    let buffer = |kind, bytes, offset, first, last, over| Buffer {
        kind,
        bytes,
        offset: Some(offset),
        first,
        last,
        over,
        within: None,
        origin: [].into(),
    };
    let buf = |i| Arg::Buffer(BufferId(i));
    let matmul = Op::MatMul(MatMul { trans_b: false, bias: false, post: vec![] });
    let pad = Op::Pad { before: vec![0, 1], after: vec![0, 1], mode: PadMode::Edge };
    let mut kernels = vec![
        kernel(matmul, vec![buf(0), Arg::Const(ConstId(0))], &[ty(&[2, 3]), ty(&[3, 4])], 1, "fc"),
        kernel(Op::unary(Unary::Relu), vec![buf(1)], &[ty(&[2, 4])], 2, "act"),
        kernel(pad, vec![buf(2)], &[ty(&[2, 4])], 3, "pad"),
    ];
    kernels[2].scratch = Some(BufferId(4));
    let port = |name: &str, ty, buffer| PlanPort { name: name.into(), ty, quant: None, buffer: BufferId(buffer) };
    Plan {
        name: "net".into(),
        buffers: vec![
            buffer(BufferKind::Input(0), 24, 32, 0, 0, None),
            buffer(BufferKind::Value, 32, 0, 0, 1, None),
            buffer(BufferKind::Value, 32, 0, 1, 2, Some(in_place_of(1))),
            buffer(BufferKind::Output(0), 48, 32, 2, 2, None),
            buffer(BufferKind::Scratch, 16, 80, 2, 2, None),
        ],
        consts: vec![PlanConst {
            tensor: Tensor::new([3, 4], &[0.5f32; 12]),
            packing: Packing::Permute(vec![1, 0]),
            memory: None,
            origin: origin("w"),
        }],
        kernels,
        inputs: vec![port("x", ty(&[2, 3]), 0)],
        outputs: vec![port("y", ty(&[2, 6]), 3)],
        arena_bytes: 96,
        arenas: Arena::whole(),
        alignment: 16,
        bounds: Bounds { live: 96, operator: 56 },
    }
}

#[test]
fn the_plan_is_valid_and_runs() {
    let plan = valid();
    assert_eq!(verify(&plan), Ok(()));
    let x = Tensor::new([2, 3], &[1.0f32, 1.0, 1.0, -2.0, 0.0, 0.0]);
    let y = plan::interp::run(&plan, &[x]);
    assert_eq!(y[0].to_f32(), [1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

fn in_place_of(donor: u32) -> Over {
    Over { donor: BufferId(donor), how: Overlap::InPlace }
}

/// The plan with its first result, 32 bytes at 0, over its input, 24 bytes.
fn over(input_at: usize, how: Overlap) -> Plan {
    let mut plan = valid();
    plan.buffers[0].offset = Some(input_at);
    plan.buffers[1].over = Some(Over { donor: BufferId(0), how });
    plan
}

#[test]
fn a_result_may_lie_ahead_of_or_behind_the_argument_that_dies() {
    assert_eq!(verify(&over(16, Overlap::Ahead(16))), Ok(()));
    assert_eq!(verify(&over(0, Overlap::Behind(8))), Ok(()));
}

#[test]
fn every_fault_is_found() {
    type Break = fn(&mut Plan);
    let cases: Vec<(&str, Break)> = vec![
        ("kernel 0 matmul (fc): b9 does not exist", |p| p.kernels[0].args[0] = Arg::Buffer(BufferId(9))),
        ("kernel 0 matmul (fc): k9 does not exist", |p| p.kernels[0].args[1] = Arg::Const(ConstId(9))),
        ("kernel 1 relu (act): b9 does not exist", |p| p.kernels[1].out = BufferId(9)),
        ("b9 does not exist", |p| p.inputs[0].buffer = BufferId(9)),
        ("b9 does not exist", |p| p.outputs[0].buffer = BufferId(9)),
        ("b9 does not exist", |p| p.buffers[3].over = Some(in_place_of(9))),
        ("b9 does not exist", |p| p.kernels[0].scratch = Some(BufferId(9))),
        ("reads b2 before anything fills it", |p| p.kernels[1].args[0] = Arg::Buffer(BufferId(2))),
        ("reads b1, which is live 0..=0", |p| p.buffers[1].last = 0),
        ("writes b1, which is live 1..=1", |p| p.buffers[1].first = 1),
        ("reads its own output b2", |p| p.kernels[2].out = BufferId(2)),
        ("fills b2 a second time", |p| p.kernels[2].out = BufferId(2)),
        ("output y: reads b3 before anything fills it", |p| p.kernels[2].out = BufferId(2)),
        ("writes b0, which holds no result", |p| p.kernels[1].out = BufferId(0)),
        ("b1 is live 2..=1, the plan runs kernels 0..=2", |p| p.buffers[1].first = 2),
        ("b3 is live 2..=3", |p| p.buffers[3].last = 3),
        ("b0 is an input, but not live before kernel 1", |p| p.buffers[0].first = 1),
        ("output y: b3 dies in kernel 1", |p| (p.buffers[3].first, p.buffers[3].last) = (1, 1)),
        ("b1 is at 8, not aligned to 16", |p| p.buffers[1].offset = Some(8)),
        ("the alignment 12 is no power of two", |p| p.alignment = 12),
        ("the alignment 0 is no power of two", |p| p.alignment = 0),
        ("b4 (16 bytes at 80) leaves the arena of 95 bytes", |p| p.arena_bytes = 95),
        ("leaves the arena", |p| p.buffers[4].offset = Some(usize::MAX - 15)),
        ("b1 is outside the arena", |p| p.buffers[1].offset = None),
        ("b0 and b1 are live together and overlap", |p| p.buffers[0].offset = Some(16)),
        ("b1 and b2 are live together and overlap", |p| p.buffers[2].over = None),
        ("b1 and b2 are live together and overlap", |p| p.buffers[1].last = 2),
        ("b1 under it dies in kernel 2", |p| p.buffers[1].last = 2),
        ("b2 takes over b1 in place, at another offset", |p| p.buffers[2].offset = Some(32)),
        ("b2 takes over b1 in place, but is larger", |p| p.buffers[2].bytes = 33),
        ("b2 takes the memory of b0, but is not computed from it", |p| p.buffers[2].over = Some(in_place_of(0))),
        ("b1 overlaps b0, but not 17 bytes ahead of it", |p| *p = over(16, Overlap::Ahead(17))),
        ("b1 overlaps b0, but not 9 bytes behind it", |p| *p = over(0, Overlap::Behind(9))),
        ("k0: f32[3x4] cannot be packed as Permute([0, 0])", |p| p.consts[0].packing = Packing::Permute(vec![0, 0])),
        ("cannot be packed", |p| p.consts[0].packing = Packing::Panel { rows: 0, depth: 1 }),
        ("k0: i4[12] has elements below a byte", |p| {
            p.consts[0].tensor = Tensor::from_i64(TensorType::new(DType::I4, [12]), &[0; 12]);
            p.consts[0].packing = Packing::Panel { rows: 1, depth: 1 };
        }),
        ("k0 is f32[12x2], read as f32[3x4]", |p| {
            p.consts[0].tensor = Tensor::new([12, 2], &[0.5f32; 24]);
            p.consts[0].packing = Packing::None;
        }),
        ("k0 is i32[3x4], read as f32[3x4]", |p| p.consts[0].tensor = Tensor::new([3, 4], &[1i32; 12])),
        ("kernel 1 relu (act): 1 arguments, 0 types", |p| p.kernels[1].arg_types.clear()),
        ("kernel 1 relu (act): f32[2x4] does not fit b1 of 31 bytes", |p| p.buffers[1].bytes = 31),
        ("output y: f32[2x6] does not fit b3 of 47 bytes", |p| p.buffers[3].bytes = 47),
        ("kernel 1 relu (act): gives f32[2x4], not f32[4x2]", |p| {
            p.kernels[1].out_type.shape.reverse();
        }),
        ("argument 1 is f32[4x2], in the nest f32[2x4]", |p| p.kernels[1].out_type.shape.reverse()),
        ("argument 0 is f32[4x2], in the nest f32[2x4]", |p| p.kernels[1].arg_types[0].shape.reverse()),
        ("kernel 1 not (act)", |p| p.kernels[1].op = Op::unary(Unary::Not)),
        ("b1 is no scratch memory", |p| p.kernels[1].scratch = Some(BufferId(1))),
        ("the scratch memory b4 is not live", |p| (p.buffers[4].first, p.buffers[4].last) = (0, 0)),
        ("the nest has 1 inputs and 0 tables, the kernel 1 and 1", |p| p.kernels[1].tables.push(ConstId(0))),
        ("nest: a store at 8 of argument 1 (f32[2x4]) may reach elements 8..=8", |p| {
            let value = crate::nest::Expr::F32(0.0);
            p.kernels[1].nest.body.push(Stmt::Store { arg: 1, index: Index::constant(8), value });
        }),
        ("input x: b0 is Value, not Input(0)", |p| p.buffers[0].kind = BufferKind::Value),
        ("output y: b3 is Value, not Output(0)", |p| p.buffers[3].kind = BufferKind::Value),
    ];
    for (fault, damage) in cases {
        let mut plan = valid();
        damage(&mut plan);
        match verify(&plan) {
            Err(Error::Verify(faults)) => assert!(faults.iter().any(|f| f.contains(fault)), "{fault}: {faults:#?}"),
            other => panic!("{fault}: {other:?}"),
        }
    }
}

#[test]
fn tables_are_the_nests_own() {
    let ty = TensorType::new(DType::F32, [2, 4]);
    let table = Tensor::new([2, 4], &[1i32; 8]);
    let with_table = |constant: &Tensor| {
        let mut plan = valid();
        let mut b = crate::nest::NestBuilder::new(&[&ty], &ty);
        b.table(table.clone());
        b.repeat(8, |b, i| {
            let v = b.load(0, i.clone());
            b.store(i, v);
        });
        plan.kernels[1].nest = b.finish();
        plan.kernels[1].tables = vec![ConstId(1)];
        plan.consts.push(PlanConst {
            tensor: constant.clone(),
            packing: Packing::None,
            memory: None,
            origin: [].into(),
        });
        verify(&plan)
    };
    assert_eq!(with_table(&table), Ok(()));
    let other = with_table(&Tensor::new([2, 4], &[2i32; 8])).unwrap_err();
    assert!(other.to_string().contains("k1 is not the nest's table"), "{other}");
}

#[test]
fn the_text_form_shows_everything() {
    let mut plan = valid();
    plan.inputs[0].quant = Some(QuantParams { scale: F32(0.5), zero_point: 3 });
    plan.buffers[0].origin = origin("x");
    let hash = &plan.consts[0].tensor.sha256()[..16];
    let expected = format!(
        "\
plan @\"net\" {{
    arena 96 bytes, alignment 16
    bounds live 96 bytes, operator 56 bytes
    input \"x\": f32[2x3] in b0 quant(0.5, 3)
    output \"y\": f32[2x6] in b3
    b0: input 0, 24 bytes at 32, live 0..=0 \"x\"
    b1: value, 32 bytes at 0, live 0..=1
    b2: value, 32 bytes at 0, live 1..=2, in place of b1
    b3: output 0, 48 bytes at 32, live 2..=2
    b4: scratch, 16 bytes at 80, live 2..=2
    k0: f32[3x4] \"w\" sha256:{hash} permute[1, 0] f32[4x3]
    0: b1 = matmul b0: f32[2x3], k0: f32[3x4] : f32[2x4] by nest, 24 macs \"fc\"
    1: b2 = relu b1: f32[2x4] : f32[2x4] by nest \"act\"
    2: b3 = pad b2: f32[2x4] {{mode = edge, before = [0, 1], after = [0, 1]}} : f32[2x6] by nest, scratch b4 \"pad\"
}}
"
    );
    assert_eq!(plan.to_string(), expected);
    assert!(
        format!("{plan:#}").contains("        nest(a0: f32[2x4], out: f32[2x4]) {\n            for i0 in 0..2 {\n")
    );
}

/// A way to break a plan.
type Damage = fn(&mut Plan);

/// The valid plan with memory from 80 on in a second arena.
fn two_arenas() -> Plan {
    let mut plan = valid();
    let arena = |memory: &str, start| Arena { memory: Some(memory.into()), start };
    plan.arenas = vec![arena("tcm", 0), arena("sram", 80)];
    plan
}

#[test]
fn arenas_follow_one_another() {
    assert_eq!(verify(&two_arenas()), Ok(()));
    assert_eq!((two_arenas().bytes_of_arena(0), two_arenas().bytes_of_arena(1)), (80, 16));
    assert_eq!([0, 79, 80, 95].map(|at| two_arenas().arena_at(at)), [0, 0, 1, 1]);
    let faults: [(&str, Damage); 6] = [
        ("b3 (48 bytes at 32) lies in two arenas", |p| p.arenas[1].start = 64),
        ("arena 1 cannot begin at 88", |p| p.arenas[1].start = 88),
        ("arena 1 cannot begin at 0", |p| p.arenas[1].start = 0),
        ("arena 1 cannot begin at 112", |p| p.arenas[1].start = 112),
        ("no arena begins at 0", |p| p.arenas[0].start = 16),
        ("no arena begins at 0", |p| p.arenas.clear()),
    ];
    for (fault, damage) in faults {
        let mut plan = two_arenas();
        damage(&mut plan);
        let text = verify(&plan).unwrap_err().to_string();
        assert!(text.contains(fault), "{fault}: {text}");
    }
}

/// `x -> relu of its first half -> b1, relu of its second -> b2, both halves of b3 -> relu -> y`, with parts b5 and b6 of x.
fn halves() -> Plan {
    let ty = |n: usize| TensorType::new(DType::F32, [n]);
    let kernel = |from: u32, n, out| {
        let op = Op::unary(Unary::Relu);
        Kernel {
            nest: ops::nest(&op, &[&ty(n)], &ty(n)).unwrap(),
            macs: 0,
            cycles: 0.0,
            arg_types: vec![ty(n)],
            op,
            args: vec![Arg::Buffer(BufferId(from))],
            out: BufferId(out),
            out_type: ty(n),
            tables: vec![],
            implementation: crate::catalogue::NEST,
            scratch: None,
            origin: origin("act"),
        }
    };
    let buffer = |kind, bytes, offset, first, last, within: Option<(u32, usize)>| Buffer {
        kind,
        bytes,
        offset: Some(offset),
        first,
        last,
        over: None,
        within: within.map(|(whole, at)| Within { whole: BufferId(whole), at }),
        origin: [].into(),
    };
    let port = |name: &str, buffer| PlanPort { name: name.into(), ty: ty(8), quant: None, buffer: BufferId(buffer) };
    Plan {
        name: "halves".into(),
        buffers: vec![
            buffer(BufferKind::Input(0), 32, 0, 0, 0, None),
            buffer(BufferKind::Value, 16, 32, 0, 2, Some((3, 0))),
            buffer(BufferKind::Value, 16, 48, 1, 2, Some((3, 16))),
            buffer(BufferKind::Value, 32, 32, 1, 2, None),
            buffer(BufferKind::Output(0), 32, 0, 2, 2, None),
            buffer(BufferKind::Value, 16, 0, 0, 0, Some((0, 0))),
            buffer(BufferKind::Value, 16, 16, 0, 1, Some((0, 16))),
        ],
        consts: vec![],
        kernels: vec![kernel(5, 4, 1), kernel(6, 4, 2), kernel(3, 8, 4)],
        inputs: vec![port("x", 0)],
        outputs: vec![port("y", 4)],
        arena_bytes: 64,
        arenas: Arena::whole(),
        alignment: 16,
        bounds: Bounds { live: 64, operator: 32 },
    }
}

#[test]
fn parts_are_read_and_filled_in_place() {
    assert_eq!(verify(&halves()), Ok(()));
    let x: Vec<f32> = (0..8).map(|i| i as f32 - 3.5).collect();
    let y = plan::interp::run(&halves(), &[Tensor::new([8], &x)]);
    assert_eq!(y[0].to_f32(), x.iter().map(|x| x.max(0.0)).collect::<Vec<_>>());
    let faults: [(&str, Damage); 10] = [
        ("b6 is not 16 bytes into b0", |p| p.buffers[6].offset = Some(0)),
        ("b6 (32 bytes at 16) leaves b0 of 32 bytes", |p| p.buffers[6].bytes = 32),
        ("b9 does not exist", |p| p.buffers[6].within = Some(Within { whole: BufferId(9), at: 0 })),
        ("b5 is a part of itself", |p| p.buffers[0].within = Some(Within { whole: BufferId(5), at: 0 })),
        ("b1 is a part, but Scratch", |p| p.buffers[1].kind = BufferKind::Scratch),
        // A half that nobody fills, or both the same one.
        ("reads b3 before anything fills it", |p| p.kernels[1].out = BufferId(4)),
        ("fills b1 a second time", |p| p.kernels[1].out = BufferId(1)),
        ("kernel 1 relu (act): fills b6 a second time", |p| p.kernels[1].out = BufferId(6)),
        // What is read must have lived on.
        ("reads b3, live from 2 on, of b1 that dies in kernel 0", |p| {
            (p.buffers[1].last, p.buffers[3].first) = (0, 2);
        }),
        ("b0 and b1 are live together and overlap", |p| {
            (p.buffers[1].offset, p.buffers[3].offset, p.buffers[2].offset) = (Some(0), Some(0), Some(16));
        }),
    ];
    for (fault, damage) in faults {
        let mut plan = halves();
        damage(&mut plan);
        let text = verify(&plan).unwrap_err().to_string();
        assert!(text.contains(fault), "{fault}: {text}");
    }
}
