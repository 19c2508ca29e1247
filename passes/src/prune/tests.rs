//! Masks, least squares under them, and whole graphs.

use super::*;
use crate::pass::PassCx;
use crate::quantize::columns::Moments;
use crate::quantize::{Random, prepare};
use mcc_ir::{Target, eval, text};
use proptest::prelude::*;

/// Three layers of each kind that is pruned: by channels first, by channels last, and a product stored as `[K, N]`.
const NET: &str = r#"graph @net(x: f32[1x4x6x6]) {
    w0 = const f32[8x4x3x3] rand(1, -0.5, 0.5)
    c0 = conv2d x, w0 {layout = nchw, pad = [1, 1, 1, 1]} : f32[1x8x6x6] "first"
    r0 = relu c0 : f32[1x8x6x6] "act"
    t = transpose r0 {perm = [0, 2, 3, 1]} : f32[1x6x6x8] "turn"
    w1 = const f32[8x1x1x8] rand(2, -0.5, 0.5)
    b1 = const f32[8] rand(3, -0.5, 0.5)
    c1 = conv2d t, w1, b1 {layout = nhwc, bias} : f32[1x6x6x8] "second"
    q = reduce_mean c1 {axes = [1, 2]} : f32[1x8] "mean"
    w2 = const f32[8x5] rand(4, -0.5, 0.5)
    y = matmul q, w2 : f32[1x5] "dense"
    return y
}"#;

fn net() -> (Graph, Sites) {
    let target = Target::parse("name = \"t\"\ndescription = \"\"\nbackend = \"c\"\nalignment = 4").unwrap();
    let graph = prepare::prepare(&text::parse(NET, &|_| None).unwrap(), &PassCx::quiet(&target)).unwrap();
    let sites = Sites::of(&graph, &[]).unwrap();
    (graph, sites)
}

/// Weights and bias of a layer, and moments of random rows whose elements depend on each other, with the layer's outputs.
fn layer_data(graph: &Graph, layer: &Layer, seed: u64) -> (Vec<f64>, Vec<f64>, Means) {
    let constant = |v: ValueId| graph.constant(v).unwrap().to_f64();
    let rows = layer.map.rows(&constant(layer.w));
    let bias = layer.bias.map_or(vec![0.0; layer.map.channels], constant);
    let depth = layer.map.depth;
    let mut random = Random(seed);
    let mut m = Moments::new(depth, layer.map.channels);
    for _ in 0..400 {
        let common = random.unit() as f32;
        let x: Vec<f32> = (0..depth).map(|i| common * (i % 3) as f32 + random.unit() as f32).collect();
        let y: Vec<f32> = (0..layer.map.channels)
            .map(|c| {
                let w = &rows[c * depth..(c + 1) * depth];
                (bias[c] + w.iter().zip(&x).map(|(w, x)| w * *x as f64).sum::<f64>()) as f32
            })
            .collect();
        m.add(|out| out.extend_from_slice(&x), y);
    }
    (rows, bias, m.finish())
}

fn zeros(rows: &[f64]) -> usize {
    rows.iter().filter(|w| **w == 0.0).count()
}

/// Mean squared error of outputs about their means.
fn error(real: &[f64], found: &[f64], depth: usize, m: &Means) -> f64 {
    let h = m.covariance();
    let of_row = |e: Vec<f64>| (0..depth).map(|i| e[i] * linear::dot(&h[i * depth..(i + 1) * depth], &e)).sum::<f64>();
    real.chunks(depth)
        .zip(found.chunks(depth))
        .map(|(a, b)| of_row(a.iter().zip(b).map(|(a, b)| a - b).collect()))
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn what_stays_is_counted_and_makes_up_for_what_goes(seed: u64, at in 0usize..3, share in 0.0f64..1.0) {
        let (graph, sites) = net();
        let layer = &sites.layers[at];
        let (rows, _, m) = layer_data(&graph, layer, seed);
        let count = (share * rows.len() as f64) as usize;
        let pruned = fitted(&rows, layer, Share::Count(count), std::slice::from_ref(&m));
        prop_assert_eq!(zeros(&pruned.rows), rows.len() - count);
        // Never worse than the same mask without least squares.
        let simple: Vec<f64> = rows.iter().zip(&pruned.rows).map(|(w, p)| if *p == 0.0 { 0.0 } else { *w }).collect();
        let (fitted, simple) = (error(&rows, &pruned.rows, layer.map.depth, &m), error(&rows, &simple, layer.map.depth, &m));
        prop_assert!(fitted <= simple * 1.01 + 1e-6, "{fitted} {simple}");
        // The means are right.
        for (c, (w, bias)) in pruned.rows.chunks(layer.map.depth).zip(&pruned.bias).enumerate() {
            prop_assert!((linear::dot(w, &m.x) + bias - m.y[c]).abs() < 1e-9);
        }
    }
}

#[test]
fn groups_lie_along_input_channels() {
    let (graph, sites) = net();
    for (at, taps) in [(0, 9), (1, 1), (2, 1)] {
        let layer = &sites.layers[at];
        let (rows, _, m) = layer_data(&graph, layer, 3);
        let pruned = fitted(&rows, layer, Share::Groups { keep: 2, of: 4 }, &[m]);
        let depth = layer.map.depth;
        let channels = depth / taps;
        for row in pruned.rows.chunks(depth) {
            for (tap, first) in (0..taps).flat_map(|t| (0..channels).step_by(4).map(move |c| (t, c))) {
                // Only the first layer has more than one tap, and its channels come before them.
                let group: Vec<f64> = (first..first + 4).map(|c| row[c * taps + tap]).collect();
                assert_eq!(zeros(&group), 2, "layer {at}: {group:?}");
            }
        }
    }
    // Channels that are no multiple of the group stay.
    let layer = &sites.layers[0];
    let (rows, _, m) = layer_data(&graph, layer, 3);
    assert_eq!(zeros(&fitted(&rows, layer, Share::Groups { keep: 1, of: 3 }, &[m]).rows), 0);
}

#[test]
fn layers_keep_what_matters_to_them() {
    let saliencies = [vec![10.0, 20.0, 30.0, 40.0], vec![1.0, 97.0, 1.0, 1.0], vec![0.0; 2]];
    assert_eq!(allocate(&saliencies, 0.5), [4, 1, 0]);
    assert_eq!(allocate(&saliencies, 0.0), [4, 4, 2]);
    let m = Means { depth: 2, x: vec![0.0; 2], xx: vec![4.0, 9.0], y: vec![], yx: vec![] };
    assert_eq!(saliency(&[1.0, 1.0, 2.0, -1.0], 2, &[m]), [4.0, 9.0, 16.0, 9.0]);
}

#[test]
fn replaced_weights_are_the_graphs() {
    let (graph, sites) = net();
    let x = Tensor::new([1, 4, 6, 6], &(0..144).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>());
    let same: HashMap<ValueId, Pruned> = sites
        .layers
        .iter()
        .map(|layer| {
            let (rows, bias, _) = layer_data(&graph, layer, 0);
            (layer.value, Pruned { rows, bias })
        })
        .collect();
    let done = replace(&graph, &sites, &same).unwrap();
    mcc_ir::verify::verify(&done.graph).unwrap();
    let [a, b] = [&graph, &done.graph].map(|g| eval::run(g, std::slice::from_ref(&x)).unwrap()[0].to_f32());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
    // The old weights are gone.
    let constants = |g: &Graph| g.values().filter(|(id, _)| g.constant(*id).is_some()).count();
    assert_eq!(constants(&done.graph), 6);
    assert_eq!(done.graph.outputs[0].name, graph.outputs[0].name);
}
