//! Every implementation of the C catalogue, and the loop nests beside them, against the evaluator.

mod c_support;

use c_support::cases::{
    averages, convs, depthwises, few_channels, matmuls, narrow, pointwises, rows_to_bytes, wholes, wide_convs,
    winograds,
};
use c_support::{Random, agrees, all_agree, compile, compile_as, installed, single, without_nests};
use mcc_backends::c::{CATALOGUE, CSource};
use mcc_ir::catalogue::Implementation;
use mcc_ir::graph::Graph;
use mcc_ir::op::{Binary, Conv2d, Layout, Rounding, Step};
use mcc_ir::plan::Arg;
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{DType, Op, Tensor};
use mcc_passes::lower::{Goal, Io, Options, lower};

fn entry(id: &str) -> Vec<Implementation> {
    CATALOGUE.iter().filter(|e| e.id == id).copied().collect()
}

/// Whether the output overlaps the first argument, where the implementation lets it.
fn overlaps(g: &mcc_ir::Graph, catalogue: &[Implementation], target: &str) -> Option<bool> {
    let options = Options { goal: Goal::Time, ..Options::default() };
    let plan = lower(g, &without_nests(target), catalogue, options).unwrap();
    let k = &plan.kernels[0];
    let (Arg::Buffer(id), out) = (k.args[0], plan.buffer(k.out)) else { return None };
    let x = plan.buffer(id);
    out.over.filter(|over| over.donor == id)?;
    Some(x.offset? < out.offset? + out.bytes && out.offset? < x.offset? + x.bytes)
}

/// Checks the cases that one implementation takes, that it takes some, and some of them with its output over its input.
fn check(id: &str, graphs: Vec<(mcc_ir::Graph, Vec<Tensor>)>) {
    if !installed("cc") {
        return;
    }
    let (mut taken, mut may, mut over, mut factors) = (Vec::new(), 0, 0, 0);
    for (i, (g, inputs)) in graphs.iter().enumerate() {
        // Portable kernels requantise in another way where there is no FPU.
        let target = match id {
            _ if id.ends_with("mve") => "cortex-m55",
            "conv2d-s8" | "matmul-s8" | "depthwise-s8" if i % 2 == 1 => "riscv32imc",
            _ => "cortex-m4",
        };
        let overlapping = overlaps(g, &entry(id), target);
        let io = if i % 2 == 0 && overlapping.is_none() { Io::Separate } else { Io::Arena };
        let c =
            compile_as(&format!("m{i}"), g, target, &entry(id), Options { io, goal: Goal::Time, ..Options::default() });
        if c.source.contains(&format!("by {id}")) {
            may += overlapping.is_some() as usize;
            over += (overlapping == Some(true)) as usize;
            factors += c.source.contains("_factors[") as usize;
            taken.push((g, c, inputs));
        }
    }
    let cases: Vec<_> = taken.iter().map(|(g, c, inputs)| (*g, c, inputs.as_slice())).collect();
    all_agree(&cases, 0.0);
    let taken = cases.len();
    eprintln!("{id}: {taken} taken, {may} may overlap, {over} do");
    // Of 16 bits there are none.
    let bytes = graphs.iter().all(|(_, inputs)| inputs[0].dtype() != DType::I16);
    let portable = bytes && ["conv2d-s8", "matmul-s8", "depthwise-s8"].contains(&id);
    assert!(factors >= 2 || !portable, "only {factors} cases have integer factors");
    assert!(taken >= 4, "{id} takes only {taken} of the cases");
    assert!(may == 0 || over >= 2, "{id} lies over its input in only {over} of {may} cases");
}

#[test]
fn conv2d_mve_is_its_nest() {
    check("conv2d-s8-mve", convs(&[DType::I8]).into_iter().chain(wide_convs(70, 5)).collect());
}

#[test]
fn conv2d_lean_mve_is_its_nest() {
    check("conv2d-s8-lean-mve", convs(&[DType::I8]).into_iter().chain(wide_convs(70, 6)).collect());
}

#[test]
fn matmul_mve_is_its_nest() {
    check("matmul-s8-mve", matmuls(&[DType::I8]));
}

#[test]
fn row_mve_is_its_nest() {
    check("row-s8-mve", matmuls(&[DType::I8]).into_iter().chain(convs(&[DType::I8])).collect());
}

#[test]
fn average_mve_is_its_nest() {
    check("average-s8-mve", averages(12));
}

#[test]
fn depthwise_mve_is_its_nest() {
    check("depthwise-s8-mve", convs(&[DType::I8]).into_iter().chain(depthwises(200)).collect());
}

#[test]
fn conv2d_strips_is_its_nest() {
    check("conv2d-s8-strips", wholes(40));
    check("conv2d-s8-strips", pointwises(20));
}

#[test]
fn conv2d_direct_is_its_nest() {
    check("conv2d-s8-direct", wholes(60));
    check("conv2d-s8-runs", few_channels(60));
}

#[test]
fn matmul_strips_is_its_nest() {
    check("matmul-s8-strips", matmuls(&[DType::I8]));
}

#[test]
fn conv2d_pairs_is_its_nest() {
    check("conv2d-s8-pairs", convs(&[DType::I8, DType::U8]));
}

#[test]
fn conv2d_dsp_is_its_nest() {
    check("conv2d-s8-dsp", convs(&[DType::I8, DType::U8]));
}

#[test]
fn winograd_2_is_its_nest() {
    check("conv2d-s8-winograd-2", winograds(1, 24));
}

#[test]
fn winograd_4_is_its_nest() {
    check("conv2d-s8-winograd-4", winograds(1, 32));
}

#[test]
fn winograd_at_stride_2_is_its_nest() {
    check("conv2d-s8-winograd-stride-2", winograds(2, 24));
}

#[test]
fn conv2d_s8_is_its_nest() {
    check("conv2d-s8", convs(&[DType::I8, DType::U8]));
}

#[test]
fn conv2d_f32_is_its_nest() {
    check("conv2d-f32", convs(&[DType::F32]));
}

#[test]
fn depthwise_dsp_is_its_nest() {
    check("depthwise-s8-dsp", convs(&[DType::I8, DType::U8]).into_iter().chain(depthwises(12)).collect());
}

#[test]
fn depthwise_rows_is_its_nest() {
    check("depthwise-s8-rows", convs(&[DType::I8, DType::U8]).into_iter().chain(depthwises(40)).collect());
}

#[test]
fn depthwise_s8_is_its_nest() {
    check("depthwise-s8", convs(&[DType::I8, DType::U8]).into_iter().chain(depthwises(12)).collect());
}

/// Values of 16 bits under weights of 8 and of 4.
#[test]
fn wide_values_agree_with_their_nests() {
    let images = || convs(&[DType::I16]);
    for id in ["conv2d-s8-dsp", "conv2d-s8", "depthwise-s8-dsp", "depthwise-s8"] {
        check(id, images());
    }
    check("conv2d-s4-dsp", narrow(images()));
    check("conv2d-s4", narrow(images()));
    check("depthwise-s4", narrow(images()));
    check("depthwise-s4-dsp", narrow(images()));
    for id in ["matmul-s8-dsp", "matmul-s8"] {
        check(id, matmuls(&[DType::I16]));
    }
    check("matmul-s4-dsp", narrow(matmuls(&[DType::I16])));
    check("matmul-s4", narrow(matmuls(&[DType::I16])));
}

#[test]
fn conv2d_fours_is_its_nest() {
    check("conv2d-s4-fours", narrow(convs(&[DType::I8, DType::U8])));
    check("conv2d-s4-fours", narrow(wide_convs(20, 6)));
}

#[test]
fn conv2d_s4_dsp_is_its_nest() {
    check("conv2d-s4-dsp", narrow(convs(&[DType::I8, DType::U8])));
    check("conv2d-s4-dsp", narrow(wide_convs(20, 7)));
}

#[test]
fn conv2d_s4_is_its_nest() {
    check("conv2d-s4", narrow(convs(&[DType::I8, DType::U8])));
}

#[test]
fn depthwise_s4_is_its_nest() {
    let all = || narrow(convs(&[DType::I8, DType::U8]).into_iter().chain(depthwises(12)).collect());
    check("depthwise-s4", all());
    check("depthwise-s4-dsp", all());
}

#[test]
fn matmul_fours_is_its_nest() {
    check("matmul-s4-fours", narrow(matmuls(&[DType::I8, DType::U8])));
}

#[test]
fn matmul_s4_dsp_is_its_nest() {
    check("matmul-s4-dsp", narrow(matmuls(&[DType::I8, DType::U8])));
}

#[test]
fn matmul_s4_is_its_nest() {
    check("matmul-s4", narrow(matmuls(&[DType::I8, DType::U8])));
}

/// It costs more cycles than the nest, and is there for its flash; also for channels first and groups, which nothing
/// else takes.
#[test]
fn nest_s4_is_its_nest() {
    if !installed("cc") {
        return;
    }
    let channels_first = |(g, inputs): (Graph, Vec<Tensor>)| {
        let nchw = g.rebuild(|out, _, value, inputs| match &value.def {
            mcc_ir::graph::Def::Node { op: Op::Conv2d(o), .. } => {
                let perm = |v, perm: &[usize], out: &mut mcc_ir::Graph| {
                    out.add_node(Op::Transpose { perm: perm.to_vec() }, vec![v], value.origin.clone())
                };
                let mut inputs = inputs.to_vec();
                inputs[0] = perm(inputs[0], &[0, 3, 1, 2], out)?;
                let weights = out.constant(inputs[1]).expect("constant weights");
                let packed = mcc_ir::packing::Packing::Permute(vec![0, 3, 1, 2]).apply(weights);
                inputs[1] = out.add_const(packed, value.origin.clone());
                let own = 2 + o.bias as usize;
                for v in &mut inputs[own..] {
                    let n = out.ty(*v).elements();
                    *v = out.add_node(Op::Reshape { shape: vec![n, 1, 1] }, vec![*v], value.origin.clone())?;
                }
                out.add_node(Op::Conv2d(Conv2d { layout: Layout::Nchw, ..o.clone() }), inputs, value.origin.clone())
            }
            _ => out.copy_value(value, inputs),
        });
        (nchw.unwrap(), inputs)
    };
    let images: Vec<_> = convs(&[DType::I8]).into_iter().map(channels_first).collect();
    let cases = narrow(images.into_iter().chain(matmuls(&[DType::U8])).collect());
    let options = Options { goal: Goal::Size, ..Options::default() };
    let emit = |(i, (g, _)): (usize, &(Graph, _))| {
        compile_as(&format!("m{i}"), g, "cortex-m4", &entry("nest-s4"), options.clone())
    };
    let emitted: Vec<CSource> = cases.iter().enumerate().map(emit).collect();
    let taken = emitted.iter().filter(|c| c.source.contains("by nest-s4")).count();
    let pairs = cases.iter().zip(&emitted);
    all_agree(&pairs.map(|((g, inputs), c)| (g, c, inputs.as_slice())).collect::<Vec<_>>(), 0.0);
    assert!(taken >= 12, "it takes only {taken} of the cases");
}

#[test]
fn depthwise_f32_is_its_nest() {
    check("depthwise-f32", convs(&[DType::F32]));
}

#[test]
fn matmul_pairs_is_its_nest() {
    check("matmul-s8-pairs", matmuls(&[DType::I8, DType::U8]));
}

#[test]
fn row_pairs_is_its_nest() {
    check("row-s8-pairs", rows_to_bytes(60));
    check("row-s8-bytes", rows_to_bytes(60));
}

#[test]
fn matmul_dsp_is_its_nest() {
    check("matmul-s8-dsp", matmuls(&[DType::I8, DType::U8]));
}

#[test]
fn matmul_s8_is_its_nest() {
    check("matmul-s8", matmuls(&[DType::I8, DType::U8]));
}

#[test]
fn matmul_f32_is_its_nest() {
    check("matmul-f32", matmuls(&[DType::F32]));
}

/// A residual addition in the epilogue reads an operand of the output's shape, here under its output in place.
#[test]
fn residual_epilogues_read_before_they_write() {
    if !installed("cc") {
        return;
    }
    let r = &mut Random::new(77);
    let q = QuantParams { scale: F32(0.05), zero_point: 3 };
    let post = vec![
        Step::Requant { rounding: Rounding::F32HalfEven, zero: 3, lo: -128, hi: 127, dtype: DType::I8 },
        Step::Dequant(q),
        Step::Binary {
            op: Binary::Add,
            swapped: false,
            dequant: Some(QuantParams { scale: F32(0.07), zero_point: -4 }),
        },
        Step::Quant { q: QuantParams { scale: F32(0.1), zero_point: -128 }, lo: -128, hi: 127, dtype: DType::I8 },
    ];
    let op = Conv2d {
        layout: Layout::Nhwc,
        stride: [1, 1],
        pad: [1; 4],
        dilation: [1, 1],
        groups: 1,
        pad_value: -9,
        bias: true,
        post,
    };
    let inputs = [
        (r.tensor(DType::I8, &[1, 5, 5, 8]), true),
        (r.tensor(DType::I8, &[8, 3, 3, 8]), false),
        (r.tensor(DType::I32, &[8]), false),
        (Tensor::new([8], &[0.0002f32; 8]), false),
        (r.tensor(DType::I8, &[1, 5, 5, 8]), true),
    ];
    let (g, given) = single(Op::Conv2d(op), &inputs);
    for (catalogue, io) in
        [(&[][..], Io::Separate), (CATALOGUE, Io::Separate), (CATALOGUE, Io::Arena), (&[][..], Io::Arena)]
    {
        let c = compile(&g, "cortex-m4", catalogue, io);
        agrees(&g, &c, &given, 0.0);
    }
}

#[test]
fn nests_of_convolutions_and_products_agree() {
    if !installed("cc") {
        return;
    }
    let types = [DType::I8, DType::U8, DType::F32];
    // All of them take a while to compile; every third covers each type and each case over the list.
    let cases: Vec<_> = convs(&types).into_iter().chain(matmuls(&types)).step_by(3).collect();
    let options = Options { goal: Goal::Time, ..Options::default() };
    let emit = |(i, (g, _)): (usize, &(Graph, _))| compile_as(&format!("m{i}"), g, "generic-c", &[], options.clone());
    let emitted: Vec<CSource> = cases.iter().enumerate().map(emit).collect();
    let pairs = cases.iter().zip(&emitted);
    all_agree(&pairs.map(|((g, inputs), c)| (g, c, inputs.as_slice())).collect::<Vec<_>>(), 0.0);
}
