//! Whole graphs through preparation, choice of sites and rewriting.

use super::columns::{Means, Moments};
use super::rewrite::{LayerWeights, rewrite};
use super::sites::Sites;
use super::{Grid, Histogram, Levels, Method, Random, prepare, reconstruct};
use crate::integerise::Integerise;
use crate::pass::{Pass, PassCx};
use mcc_ir::graph::{Graph, ValueId};
use mcc_ir::op::{Op, Step};
use mcc_ir::types::QuantParams;
use mcc_ir::{DType, Target, Tensor, eval, text};
use std::collections::HashMap;

/// A stem with batch normalisation, a residual block, a concatenation with a pooled branch, a mean, and a matrix product
/// stored as `[K, N]`.
const NET: &str = r#"graph @net(x: f32[1x3x8x8]) {
    w0 = const f32[8x3x3x3] rand(1, -0.5, 0.5)
    c0 = conv2d x, w0 {layout = nchw, pad = [1, 1, 1, 1]} : f32[1x8x8x8] "stem"
    g = const f32[8] rand(2, 0.5, 1.5)
    b = const f32[8] rand(3, -0.5, 0.5)
    m = const f32[8] rand(4, -0.5, 0.5)
    v = const f32[8] rand(5, 0.5, 1.5)
    n0 = batch_norm c0, g, b, m, v {epsilon = 1e-5} : f32[1x8x8x8] "norm"
    r0 = relu n0 : f32[1x8x8x8] "act"
    w1 = const f32[8x1x3x3] rand(6, -0.5, 0.5)
    c1 = conv2d r0, w1 {layout = nchw, pad = [1, 1, 1, 1], groups = 8} : f32[1x8x8x8] "depthwise"
    k1 = const f32[8x1x1] rand(7, -0.5, 0.5)
    a1 = add k1, c1 : f32[1x8x8x8] "depthwise_bias"
    s = add r0, a1 : f32[1x8x8x8] "join"
    r1 = relu s : f32[1x8x8x8] "joined"
    p = max_pool2d r1 {layout = nchw, kernel = [2, 2], stride = [2, 2]} : f32[1x8x4x4] "pool"
    w2 = const f32[4x8x2x2] rand(8, -0.5, 0.5)
    b2 = const f32[4] rand(9, -0.5, 0.5)
    c2 = conv2d r1, w2, b2 {layout = nchw, stride = [2, 2], bias} : f32[1x4x4x4] "branch"
    l = clip(0.0, 6.0) c2 : f32[1x4x4x4] "clip"
    j = concat p, l {axis = 1} : f32[1x12x4x4] "concat"
    q = reduce_mean j {axes = [2, 3]} : f32[1x12] "mean"
    w3 = const f32[12x5] rand(10, -0.5, 0.5)
    d = matmul q, w3 : f32[1x5] "dense"
    b3 = const f32[5] rand(11, -0.5, 0.5)
    y = add d, b3 : f32[1x5] "dense_bias"
    return y
}"#;

fn net() -> Graph {
    text::parse(NET, &|_| None).unwrap()
}

fn target() -> Target {
    Target::parse("name = \"t\"\ndescription = \"\"\nbackend = \"c\"\nalignment = 4").unwrap()
}

fn input(seed: u64) -> Vec<Tensor> {
    let mut random = Random(seed);
    vec![Tensor::new([1, 3, 8, 8], &(0..192).map(|_| (2.0 * random.unit() - 1.0) as f32).collect::<Vec<_>>())]
}

fn prepared() -> Graph {
    prepare::prepare(&net(), &PassCx::quiet(&target())).unwrap()
}

fn count(graph: &Graph, what: impl Fn(&Op) -> bool) -> usize {
    let live = graph.live();
    graph.values().filter(|(id, _)| live[id.index()] && graph.node(*id).is_some_and(|(op, _)| what(op))).count()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn preparation_keeps_the_function() {
    let (net, prepared) = (net(), prepared());
    assert_eq!(count(&prepared, |op| matches!(op, Op::BatchNorm { .. })), 0);
    // The residual addition alone is left.
    assert_eq!(count(&prepared, |op| op.name() == "add"), 1);
    for seed in 0..5 {
        let (a, b) = (eval::run(&net, &input(seed)).unwrap(), eval::run(&prepared, &input(seed)).unwrap());
        assert!(largest_difference(&a[0], &b[0]) < 1e-5);
    }
}

/// A chain whose channels differ much: a convolution, a depthwise one, a grouped one, and two products.
const CHAIN: &str = r#"graph @chain(x: f32[1x4x6x6], z: f32[2x3]) {
    k = const f32[8x1x1x1] [0.01, 0.1, 1.0, 10.0, 0.03, 0.3, 3.0, 30.0]
    r0 = const f32[8x4x3x3] rand(1, -0.5, 0.5)
    w0 = mul r0, k
    b0 = const f32[8] rand(2, -0.5, 0.5)
    c0 = conv2d x, w0, b0 {layout = nchw, bias} : f32[1x8x4x4] "first"
    a0 = relu c0 : f32[1x8x4x4]
    w1 = const f32[8x1x3x3] rand(3, -0.5, 0.5)
    c1 = conv2d a0, w1 {layout = nchw, pad = [1, 1, 1, 1], groups = 8} : f32[1x8x4x4] "second"
    w2 = const f32[4x4x1x1] rand(4, -0.5, 0.5)
    c2 = conv2d c1, w2 {layout = nchw, groups = 2} : f32[1x4x4x4] "third"
    d = const f32[3x5] rand(5, -0.5, 0.5)
    m0 = matmul z, d : f32[2x5] "fourth"
    m1 = relu m0
    q = const f32[5] [0.01, 1.0, 100.0, 3.0, 0.3]
    r3 = const f32[7x5] rand(6, -0.5, 0.5)
    e = mul r3, q
    m2 = matmul m1, e {trans_b} : f32[2x7] "fifth"
    return c2, m2
}"#;

#[test]
fn equalisation_keeps_the_function_and_levels_the_ranges() {
    let chain = prepare::prepare(&text::parse(CHAIN, &|_| None).unwrap(), &PassCx::quiet(&target())).unwrap();
    let equal = super::equalise::equalise(&chain).unwrap();
    let mut random = Random(9);
    for _ in 0..5 {
        let mut tensor = |shape: &[usize]| {
            let n = shape.iter().product();
            Tensor::new(shape, &(0..n).map(|_| (random.unit() - 0.5) as f32).collect::<Vec<_>>())
        };
        let inputs = [tensor(&[1, 4, 6, 6]), tensor(&[2, 3])];
        let (a, b) = (eval::run(&chain, &inputs).unwrap(), eval::run(&equal, &inputs).unwrap());
        for (a, b) in a.iter().zip(&b) {
            let largest = a.to_f64().into_iter().map(f64::abs).fold(0.0, f64::max);
            assert!(largest_difference(a, b) < 1e-5 * largest);
        }
    }
    // The error of one scale for all weights, relative to the weights of each channel.
    let spread = |graph: &Graph| {
        let sites = Sites::of(graph, &[]).unwrap();
        let of = |l: &super::sites::Layer| {
            let rows = l.map.rows(&graph.constant(l.w).unwrap().to_f64());
            let largest = |row: &[f64]| row.iter().map(|w| w.abs()).fold(0.0, f64::max);
            let all: Vec<f64> = rows.chunks(l.map.depth).map(largest).collect();
            all.iter().copied().fold(0.0, f64::max) / all.iter().copied().fold(f64::INFINITY, f64::min)
        };
        sites.layers.iter().map(of).collect::<Vec<f64>>()
    };
    let (before, after) = (spread(&chain), spread(&equal));
    assert!(before[0] > 1000.0 && after[0] < 30.0, "{before:?} {after:?}");
}

#[test]
fn sites_are_where_integers_need_them() {
    let graph = prepared();
    let name = |v: ValueId| graph.value(v).origin[0].to_string();
    let sites = Sites::of(&graph, &[]).unwrap();
    assert_eq!(
        sites.layers.iter().map(|l| name(l.value)).collect::<Vec<_>>(),
        ["stem", "depthwise", "branch", "dense"]
    );
    assert_eq!(sites.layers.iter().map(|l| name(l.end)).collect::<Vec<_>>(), ["act", "depthwise", "clip", "dense"]);
    // Neither what runs on into an activation, nor what only moves, nor the output.
    let points: Vec<String> = sites.points.iter().map(|v| name(*v)).collect();
    assert_eq!(points, ["x", "act", "depthwise", "joined", "clip", "mean"]);
    let class =
        |n: &str| sites.class(graph.values().find(|(_, v)| v.origin.first().is_some_and(|o| **o == *n)).unwrap().0);
    assert_eq!(class("joined"), class("clip"));
    assert_eq!(class("joined"), class("concat"));
    assert_ne!(class("act"), class("joined"));
    let skip = sites.layers[1].skip.map(name);
    assert_eq!(skip.as_deref(), Some("act"));
    let kept = Sites::of(&graph, &["branch".into()]).unwrap();
    assert_eq!(kept.layers.len(), 3);
    let unknown = Sites::of(&graph, &["brunch".into()]).unwrap_err();
    assert_eq!(unknown.code(), "E0405");
    assert!(unknown.to_string().contains("\"branch\""), "{unknown}");
}

/// Scales by the activations of some inputs, and weights rounded to nearest.
fn calibrated(
    graph: &Graph,
    sites: &Sites,
    grid: Grid,
) -> (HashMap<ValueId, QuantParams>, HashMap<ValueId, LayerWeights>) {
    let mut tapped = graph.clone();
    tapped.outputs.clear();
    let taps: Vec<ValueId> = sites.points.iter().copied().chain(sites.layers.iter().map(|l| l.x)).collect();
    taps.iter().for_each(|v| tapped.add_output(v.to_string(), *v));
    let mut histograms: HashMap<ValueId, Histogram> = HashMap::new();
    let moments = |l: &super::sites::Layer| vec![Moments::squares(l.rows.depth()); l.rows.groups()];
    let mut moments: Vec<Vec<Moments>> = sites.layers.iter().map(moments).collect();
    for seed in 0..20 {
        let values = eval::run(&tapped, &input(seed)).unwrap();
        for (v, t) in sites.points.iter().zip(&values) {
            histograms.entry(sites.class(*v)).or_default().add(&t.to_f32()).unwrap();
        }
        for ((layer, m), x) in sites.layers.iter().zip(&mut moments).zip(&values[sites.points.len()..]) {
            let x = x.to_f32();
            for at in 0..layer.rows.count() {
                m.iter_mut().enumerate().for_each(|(g, m)| m.add(|row| layer.rows.read(&x, at, g, row), []));
            }
        }
    }
    let range = |h: &Histogram| h.range(Method::MinMax, grid);
    let params = histograms.iter().map(|(v, h)| (*v, grid.params(range(h).0, range(h).1))).collect();
    let weights = sites.layers.iter().zip(moments).map(|(layer, m)| {
        let means: Vec<Means> = m.into_iter().map(Moments::finish).collect();
        let real = |v: ValueId| graph.constant(v).unwrap().to_f64();
        let bias = layer.bias.map_or(vec![0.0; layer.map.channels], real);
        (layer.value, reconstruct::simple(&layer.map.rows(&real(layer.w)), &bias, layer, Levels::Int8, false, &means))
    });
    (params, weights.collect())
}

#[test]
fn every_layer_becomes_an_integer_product() {
    let graph = prepared();
    let sites = Sites::of(&graph, &[]).unwrap();
    let (params, weights) = calibrated(&graph, &sites, Grid::I8);
    let done = rewrite(&graph, &sites, &params, Grid::I8, &weights).unwrap();
    mcc_ir::verify::verify(&done.graph).unwrap();
    let mut integer = done.graph.clone();
    Integerise.run(&mut integer, &PassCx::quiet(&target())).unwrap();
    let live = integer.live();
    for (id, value) in integer.values().filter(|(id, _)| live[id.index()]) {
        let Some((op @ (Op::Conv2d(_) | Op::MatMul(_) | Op::Pool2d(_) | Op::Concat { .. }), inputs)) = integer.node(id)
        else {
            continue;
        };
        assert_eq!(integer.ty(inputs[0]).dtype, DType::I8, "{}", op.name());
        let last = Some(&*value.origin[0]) == Some("dense");
        let requantised = op.post().is_some_and(|p| matches!(p.as_slice(), [Step::Requant { .. }]));
        assert_eq!(requantised, matches!(op, Op::Conv2d(_)) && !last, "{}", op.name());
    }
    assert_eq!(count(&integer, |op| matches!(op, Op::Quantize { .. } | Op::Dequantize { .. })), 0);
    // One step of 255 in each of a few layers.
    let step = params.values().map(|q| q.scale.0 as f64).fold(0.0, f64::max);
    for seed in 0..5 {
        let real = eval::run(&graph, &input(seed)).unwrap();
        let literal = eval::run(&done.graph, &input(seed)).unwrap();
        let found = eval::run(&integer, &input(seed)).unwrap();
        assert!(largest_difference(&literal[0], &found[0]) < 0.5 * step);
        assert!(largest_difference(&real[0], &found[0]) < 2.0 * step, "{}", largest_difference(&real[0], &found[0]));
    }
}

#[test]
fn kept_layers_stay_real() {
    let graph = prepared();
    let sites = Sites::of(&graph, &["branch".into(), "dense".into()]).unwrap();
    let (params, weights) = calibrated(&graph, &sites, Grid::I8);
    let mut done = rewrite(&graph, &sites, &params, Grid::I8, &weights).unwrap().graph;
    Integerise.run(&mut done, &PassCx::quiet(&target())).unwrap();
    let real = |op: &Op| matches!(op, Op::Conv2d(_) | Op::MatMul(_)) && op.post().is_some_and(Vec::is_empty);
    assert_eq!(count(&done, real), 2);
}

#[test]
fn biases_that_no_scale_fits_are_kept_by_a_coarser_one() {
    let source = r#"graph @g(x: f32[1x2]) {
        w = const f32[3x2] [0.0, 0.0, 1e-9, 1e-9, 1.0, 2.0]
        b = const f32[3] [3.25, 1000.0, 0.5]
        y = matmul x, w, b {trans_b, bias} : f32[1x3] "fc"
        return y
    }"#;
    let graph = text::parse(source, &|_| None).unwrap();
    let sites = Sites::of(&graph, &[]).unwrap();
    let params = HashMap::from([(sites.class(sites.layers[0].x), Grid::I8.params(-1.0, 1.0))]);
    let means = [{
        let mut m = Moments::squares(2);
        m.add(|row| row.extend([0.0, 0.0]), []);
        m.finish()
    }];
    let layer = &sites.layers[0];
    let w = reconstruct::simple(
        &[0.0, 0.0, 1e-9, 1e-9, 1.0, 2.0],
        &[3.25, 1000.0, 0.5],
        layer,
        Levels::Int8,
        false,
        &means,
    );
    let done = rewrite(&graph, &sites, &params, Grid::I8, &HashMap::from([(layer.value, w)])).unwrap();
    let y = eval::run(&done.graph, &[Tensor::new([1, 2], &[0.5f32, -0.25])]).unwrap()[0].to_f32();
    assert!((y[0] - 3.25).abs() < 1e-4 && (y[1] - 1000.0).abs() < 1e-2 && (y[2] - 0.5).abs() < 0.03, "{y:?}");
}

#[test]
fn fitting_a_layer_makes_up_for_what_came_before() {
    // What the layer reads is off by a factor and an offset: least squares find weights and bias that undo both.
    let source = r#"graph @g(x: f32[1x4]) {
        w = const f32[2x4] [0.5, -1.0, 0.25, 1.0, 1.0, 0.5, -0.5, 0.125]
        y = matmul x, w {trans_b} : f32[1x2] "fc"
        return y
    }"#;
    let graph = text::parse(source, &|_| None).unwrap();
    let sites = Sites::of(&graph, &[]).unwrap();
    let layer = &sites.layers[0];
    let rows = graph.constant(layer.w).unwrap().to_f64();
    let mut random = Random(4);
    let mut m = Moments::new(4, 2);
    let mut samples = vec![];
    for _ in 0..500 {
        let x: Vec<f64> = (0..4).map(|_| random.unit() - 0.3).collect();
        let y: Vec<f64> = rows.chunks(4).map(|w| w.iter().zip(&x).map(|(w, x)| w * x).sum()).collect();
        let off: Vec<f32> = x.iter().map(|x| (0.8 * x + 0.1) as f32).collect();
        m.add(|row| row.extend(&off), y.iter().map(|y| *y as f32));
        samples.push((off, y));
    }
    let fitted = reconstruct::fitted(&rows, layer, Levels::Int8, &[m.finish()]);
    let w = fitted.rounded.weights();
    let error: f64 = samples
        .iter()
        .flat_map(|(x, y)| (0..2).map(|c| (c, x, y[c])).collect::<Vec<_>>())
        .map(|(c, x, y)| {
            let found: f64 = (0..4).map(|j| w[c * 4 + j] * x[j] as f64).sum::<f64>() + fitted.bias[c];
            (found - y).powi(2)
        })
        .sum::<f64>()
        / 1000.0;
    assert!(error.sqrt() < 0.01, "{error}");
}
