//! Every rule against the evaluator: on random graphs that it matches, each form it adds must compute what was there.

use super::*;
use crate::pass::Class;
use mcc_ir::dtype::DType;
use mcc_ir::graph::origin;
use mcc_ir::op::*;
use mcc_ir::types::{F32, QuantParams, TensorType};
use mcc_ir::{Tensor, eval};

/// Graphs tried for each rule.
const CASES: u64 = 60;

/// Steele, Lea and Flood's SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// `from..=to`.
    fn range(&mut self, from: usize, to: usize) -> usize {
        from + (self.next() % (to - from + 1) as u64) as usize
    }
    fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }
    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.range(0, of.len() - 1)].clone()
    }
    fn shape(&mut self, rank: usize, largest: usize) -> Vec<usize> {
        (0..rank).map(|_| self.range(1, largest)).collect()
    }
    fn perm(&mut self, rank: usize) -> Vec<usize> {
        let mut perm: Vec<usize> = (0..rank).collect();
        for i in (1..rank).rev() {
            perm.swap(i, self.range(0, i));
        }
        perm
    }
    fn tensor(&mut self, ty: &TensorType) -> Tensor {
        let values: Vec<f64> = (0..ty.elements())
            .map(|_| match ty.dtype {
                DType::F32 => (self.next() % 4001) as f64 / 1000.0 - 2.0,
                _ => (self.next() % 256) as f64 - if ty.dtype == DType::I8 { 128.0 } else { 0.0 },
            })
            .collect();
        Tensor::from_f64(ty.clone(), &values)
    }
}

/// A graph under construction.
struct Build {
    g: Graph,
    r: Random,
}

impl Build {
    fn input(&mut self, shape: &[usize]) -> ValueId {
        self.input_of(DType::F32, shape)
    }
    fn input_of(&mut self, dtype: DType, shape: &[usize]) -> ValueId {
        let name = format!("x{}", self.g.inputs.len());
        self.g.add_input(name, TensorType::new(dtype, shape))
    }
    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let t = self.r.tensor(&TensorType::new(DType::F32, shape));
        self.g.add_const(t, origin("c"))
    }
    fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let name = op.name();
        self.g.add_node(op, inputs.to_vec(), origin(name)).expect("a well-typed test graph")
    }
    fn shape(&self, v: ValueId) -> Vec<usize> {
        self.g.ty(v).shape.clone()
    }
    fn transpose(&mut self, x: ValueId, perm: Vec<usize>) -> ValueId {
        self.node(Op::Transpose { perm }, &[x])
    }
    fn random_transpose(&mut self, rank: usize) -> ValueId {
        let shape = self.r.shape(rank, 5);
        let x = self.input(&shape);
        let perm = self.r.perm(rank);
        self.transpose(x, perm)
    }
    fn layout(&mut self) -> Layout {
        if self.r.flip() { Layout::Nchw } else { Layout::Nhwc }
    }
    /// A convolution of random geometry, without epilogue.
    fn conv(&mut self, layout: Layout, bias: bool) -> ValueId {
        let r = &mut self.r;
        let groups = [1, 1, 2][r.range(0, 2)];
        let (i, o) = (r.range(1, 3), r.range(1, 4) * groups);
        let (kh, kw) = (r.range(1, 3), r.range(1, 3));
        let (h, w) = (r.range(3, 7), r.range(3, 7));
        let conv = Conv2d {
            layout,
            stride: [r.range(1, 2), r.range(1, 2)],
            pad: [r.range(0, 2), r.range(0, 1), r.range(0, 1), r.range(0, 2)],
            dilation: [1, 1],
            groups,
            pad_value: 0,
            bias,
            post: vec![],
        };
        let place = |[n, c, h, w]: [usize; 4]| match layout {
            Layout::Nchw => [n, c, h, w],
            Layout::Nhwc => [n, h, w, c],
        };
        let x = self.input(&place([1, i * groups, h, w]));
        let weights = self.constant(&place([o, i, kh, kw]));
        let mut inputs = vec![x, weights];
        if bias {
            inputs.push(self.constant(&[o]));
        }
        self.node(Op::Conv2d(conv), &inputs)
    }
    /// A convolution, transposed convolution or matrix product, and the shape of a constant with one value a channel.
    fn product(&mut self) -> (ValueId, Vec<usize>) {
        let bias = self.r.flip();
        let layout = self.layout();
        match self.r.range(0, 2) {
            0 => {
                let v = self.conv(layout, bias);
                let shape = self.shape(v);
                let per = if layout == Layout::Nchw { vec![shape[1], 1, 1] } else { vec![shape[3]] };
                (v, per)
            }
            1 => {
                let (i, o) = (self.r.range(1, 3), self.r.range(1, 4));
                let place = |[n, c, h, w]: [usize; 4]| match layout {
                    Layout::Nchw => [n, c, h, w],
                    Layout::Nhwc => [n, h, w, c],
                };
                let x = self.input(&place([1, i, 3, 4]));
                let w = self.constant(&place([i, o, 2, 3]));
                let op = ConvTranspose2d {
                    layout,
                    stride: [2, 1],
                    pad: [0, 1, 1, 0],
                    output_pad: [0, 0],
                    dilation: [1, 1],
                    groups: 1,
                    bias,
                    post: vec![],
                };
                let mut inputs = vec![x, w];
                if bias {
                    inputs.push(self.constant(&[o]));
                }
                let v = self.node(Op::ConvTranspose2d(op), &inputs);
                (v, if layout == Layout::Nchw { vec![o, 1, 1] } else { vec![o] })
            }
            _ => {
                let (m, k, n) = (self.r.range(1, 4), self.r.range(1, 9), self.r.range(1, 5));
                let trans_b = self.r.flip();
                let x = self.input(&[m, k]);
                let w = if trans_b { self.constant(&[n, k]) } else { self.constant(&[k, n]) };
                let mut inputs = vec![x, w];
                if bias {
                    inputs.push(self.constant(&[n]));
                }
                (self.node(Op::MatMul(MatMul { trans_b, bias, post: vec![] }), &inputs), vec![n])
            }
        }
    }
}

const Q: QuantParams = QuantParams { scale: F32(0.037), zero_point: -5 };

fn binary(op: Binary) -> Op {
    Op::binary(op)
}

/// A graph whose output the rule rewrites.
fn left_side(rule: &str, b: &mut Build) -> ValueId {
    match rule {
        "batch-norm-as-scale" => {
            let shape = b.r.shape(4, 4);
            let x = b.input(&shape);
            let c = shape[1];
            let (scale, bias, mean) = (b.constant(&[c]), b.constant(&[c]), b.constant(&[c]));
            let variance: Vec<f32> = (0..c).map(|_| 0.1 + b.r.range(0, 1000) as f32 / 500.0).collect();
            let variance = b.g.add_const(Tensor::new([c], &variance), origin("variance"));
            b.node(Op::BatchNorm { epsilon: F32(1e-3) }, &[x, scale, bias, mean, variance])
        }
        "commute" => {
            let shape = b.r.shape(3, 5);
            let (x, y) = (b.input(&shape), b.input(&shape));
            let op = b.r.pick(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Less]);
            b.node(binary(op), &[x, y])
        }
        "scale-into-weights" | "bias-into-product" => {
            let (v, per_channel) = b.product();
            let c = if b.r.flip() { b.constant(&per_channel) } else { b.constant(&[1]) };
            b.node(binary(if rule == "bias-into-product" { Binary::Add } else { Binary::Mul }), &[v, c])
        }
        "dequant-into-operand" => {
            let shape = b.r.shape(3, 5);
            let (x, q) = (b.input(&shape), b.input_of(DType::I8, &shape));
            let y = b.node(Op::Map(vec![Step::Dequant(Q)]), &[q]);
            let op = b.r.pick(&[Binary::Add, Binary::Sub, Binary::Mul]);
            b.node(binary(op), &[x, y])
        }
        "steps-into-producer" => {
            let layout = b.layout();
            let v = match b.r.range(0, 3) {
                0 => b.conv(layout, true),
                1 => b.product().0,
                2 => {
                    let x = b.input(&[1, 5, 6, 2]);
                    let kind = if b.r.flip() { PoolKind::Max } else { PoolKind::Average { count_include_pad: true } };
                    b.node(
                        Op::Pool2d(Pool2d {
                            kind,
                            layout,
                            kernel: [2, 2],
                            stride: [1, 2],
                            pad: [0; 4],
                            dilation: [1, 1],
                            dequant: None,
                            post: vec![],
                        }),
                        &[x],
                    )
                }
                _ => {
                    let x = b.input(&[3, 4]);
                    b.node(Op::Softmax(Softmax { axis: 1, log: false, dequant: None, post: vec![] }), &[x])
                }
            };
            let shape = b.shape(v);
            let other = b.input(&shape);
            let step = Step::Binary { op: Binary::Add, swapped: b.r.flip(), dequant: None };
            b.node(Op::Map(vec![step, Step::Unary(Unary::Relu)]), &[v, other])
        }
        "pad-into-window" => {
            let layout = b.layout();
            let place = |[c, h, w]: [usize; 3]| match layout {
                Layout::Nchw => vec![0, c, h, w],
                Layout::Nhwc => vec![0, h, w, c],
            };
            let mut shape = place([2, 5, 6]);
            shape[0] = 1;
            let x = b.input(&shape);
            let zero = b.g.add_const(Tensor::scalar(0.0), origin("zero"));
            let (t, l, bt, r) = (b.r.range(0, 2), b.r.range(0, 2), b.r.range(0, 2), b.r.range(0, 2));
            let pad = Op::Pad { before: place([0, t, l]), after: place([0, bt, r]), mode: PadMode::Constant };
            let x = b.node(pad, &[x, zero]);
            let weights = match layout {
                Layout::Nchw => b.constant(&[3, 2, 3, 3]),
                Layout::Nhwc => b.constant(&[3, 3, 3, 2]),
            };
            let conv = Conv2d {
                layout,
                stride: [1, 2],
                pad: [0, 1, 0, 0],
                dilation: [1, 1],
                groups: 1,
                pad_value: 0,
                bias: false,
                post: vec![],
            };
            b.node(Op::Conv2d(conv), &[x, weights])
        }
        "transposed-weights" => {
            let (m, k, n) = (b.r.range(1, 4), b.r.range(1, 9), b.r.range(1, 5));
            let (x, w) = (b.input(&[2, m, k]), b.constant(&[k, n]));
            b.node(Op::MatMul(MatMul { trans_b: false, bias: false, post: vec![] }), &[x, w])
        }
        "channels-last" => {
            let v = b.conv(Layout::Nchw, true);
            if b.r.flip() {
                return v;
            }
            let kind = [
                PoolKind::Max,
                PoolKind::Average { count_include_pad: false },
                PoolKind::Average { count_include_pad: true },
            ][b.r.range(0, 2)];
            let shape = b.r.shape(2, 3);
            let x = b.input(&[shape[0], shape[1], 5, 6]);
            let pool = Pool2d {
                kind,
                layout: Layout::Nchw,
                kernel: [3, 2],
                stride: [2, 1],
                pad: [1, 0, 1, 1],
                dilation: [1, 1],
                dequant: None,
                post: vec![],
            };
            b.node(Op::Pool2d(pool), &[x])
        }
        "transpose-of-transpose" => {
            let rank = b.r.range(2, 4);
            let x = b.random_transpose(rank);
            let perm = b.r.perm(rank);
            b.transpose(x, perm)
        }
        "transpose-as-reshape" => {
            let (c, n) = (b.r.range(1, 5), b.r.range(1, 5));
            let x = b.input(&[1, c, 1, n]);
            let perm = b.r.pick(&[vec![1, 0, 2, 3], vec![0, 2, 1, 3], vec![2, 1, 3, 0]]);
            b.transpose(x, perm)
        }
        "reshape-of-reshape" => {
            let x = b.input(&[2, 3, 4]);
            let y = b.node(Op::Reshape { shape: vec![6, 4] }, &[x]);
            let shape = b.r.pick(&[vec![24, 1], vec![3, 8]]);
            b.node(Op::Reshape { shape }, &[y])
        }
        "same-shape" => {
            let shape = b.r.shape(3, 4);
            let x = b.input(&shape);
            let op = if b.r.flip() { Op::Reshape { shape } } else { Op::Broadcast { shape } };
            b.node(op, &[x])
        }
        "matmul-of-transposed" => {
            let (m, k, n) = (b.r.range(1, 4), b.r.range(1, 5), b.r.range(1, 5));
            let trans_b = b.r.flip();
            let x = b.input(&[2, m, k]);
            let y = if trans_b { b.input(&[2, k, n]) } else { b.input(&[2, n, k]) };
            let y = b.transpose(y, vec![0, 2, 1]);
            b.node(Op::MatMul(MatMul { trans_b, bias: false, post: vec![] }), &[x, y])
        }
        "map-of-transpose" => {
            let x = b.random_transpose(4);
            let shape = b.shape(x);
            let other = match b.r.range(0, 3) {
                0 => b.input(&shape),
                1 => b.constant(&shape[1..]),
                2 => b.constant(&[shape[1], 1, 1]),
                _ => b.constant(&[1]),
            };
            let step = Step::Binary { op: Binary::Sub, swapped: b.r.flip(), dequant: None };
            b.node(Op::Map(vec![step]), &[x, other])
        }
        "reduce-of-transpose" => {
            let x = b.random_transpose(4);
            let axes = b.r.pick(&[vec![1], vec![2, 3], vec![0, 2], vec![3]]);
            let kind = b.r.pick(&[ReduceKind::Mean, ReduceKind::Sum, ReduceKind::Max]);
            let keepdims = b.r.flip();
            b.node(Op::Reduce(Reduce { kind, axes, keepdims, dequant: None, post: vec![] }), &[x])
        }
        "softmax-of-transpose" => {
            let x = b.random_transpose(3);
            let axis = b.r.range(0, 2);
            b.node(Op::Softmax(Softmax { axis, log: axis == 1, dequant: None, post: vec![] }), &[x])
        }
        "concat-of-transposes" => {
            let x = b.random_transpose(3);
            let axis = b.r.range(0, 2);
            let mut shape = b.shape(x);
            shape[axis] = b.r.range(1, 4);
            let y = if b.r.flip() { b.input(&shape) } else { b.constant(&shape) };
            b.node(Op::Concat { axis }, &[x, y])
        }
        "window-of-transpose" => {
            let x = b.random_transpose(3);
            let shape = b.shape(x);
            match b.r.range(0, 2) {
                0 => {
                    let start = shape.iter().map(|&d| b.r.range(0, d - 1)).collect::<Vec<_>>();
                    let size = shape.iter().zip(&start).map(|(&d, &s)| b.r.range(1, d - s)).collect();
                    b.node(Op::Slice { start, step: vec![1; 3], shape: size }, &[x])
                }
                1 => {
                    let fill = b.constant(&[]);
                    let (before, after) = (vec![1, 0, 2], vec![0, 2, 1]);
                    b.node(Op::Pad { before, after, mode: PadMode::Constant }, &[x, fill])
                }
                _ => {
                    let to: Vec<usize> = shape.iter().zip([1, 2, 3]).map(|(d, f)| d * f).collect();
                    let scales = vec![F32(1.0), F32(2.0), F32(3.0)];
                    let mode = ResizeMode::Nearest(NearestMode::Floor);
                    let coordinates = CoordinateMode::Asymmetric;
                    b.node(Op::Resize(Resize { shape: to, scales, mode, coordinates }), &[x])
                }
            }
        }
        "reshape-of-transpose" => {
            let (n, g, c, h) = (b.r.range(1, 2), b.r.range(2, 3), b.r.range(2, 3), b.r.range(2, 3));
            match b.r.range(0, 3) {
                // Splitting the channels of an image that is stored channels last.
                0 => {
                    let x = b.input(&[n, h, h, g * c]);
                    let x = b.transpose(x, vec![0, 3, 1, 2]);
                    b.node(Op::Reshape { shape: vec![n, g, c, h, h] }, &[x])
                }
                // A channel shuffle.
                3 => {
                    let x = b.input(&[n, h, h + 1, g, c]);
                    let x = b.transpose(x, vec![0, 4, 3, 1, 2]);
                    b.node(Op::Reshape { shape: vec![n, g * c, h, h + 1] }, &[x])
                }
                // Joining dimensions that lie together.
                1 => {
                    let x = b.input(&[n, h, g, c]);
                    let x = b.transpose(x, vec![0, 2, 3, 1]);
                    b.node(Op::Reshape { shape: vec![n, g * c, h] }, &[x])
                }
                _ => {
                    let x = b.input(&[g, c, h]);
                    let x = b.transpose(x, vec![2, 0, 1]);
                    b.node(Op::Reshape { shape: vec![1, h, g * c, 1] }, &[x])
                }
            }
        }
        "dense-of-flattened-transpose" => {
            let (n, c, h) = (b.r.range(1, 3), b.r.range(2, 3), b.r.range(2, 3));
            let x = b.input(&[n, h, h + 1, c]);
            let x = b.transpose(x, vec![0, 3, 1, 2]);
            let k = c * h * (h + 1);
            let x = b.node(Op::Reshape { shape: vec![n, k] }, &[x]);
            let w = b.constant(&[3, k]);
            b.node(Op::MatMul(MatMul { trans_b: true, bias: false, post: vec![] }), &[x, w])
        }
        other => panic!("the rule {other} has no test graph"),
    }
}

/// Every form of the graph's output that the e-graph holds, as graphs.
fn forms(graph: &Graph, rule: Rule) -> (Vec<Graph>, usize) {
    let target = Target::parse(
        "name = \"t\"\ndescription = \"\"\nbackend = \"c\"\nalignment = 4\nflash = 1\nram = 1\nmhz = 1.0",
    )
    .expect("a valid target");
    let (mut eg, class_of) = load(graph);
    let report = saturate(&mut eg, &[rule]);
    assert_eq!(eg.analysis.fault, None);
    let root = eg.find(class_of[&graph.outputs[0].value]);
    let choice = extract::extract(&eg, &[root], &|node| cost::cycles(&eg, node, &target));
    let graphs = eg[root]
        .nodes
        .iter()
        .filter_map(|node| {
            let mut choice = choice.clone();
            choice.insert(root, node.clone());
            let below: Vec<Id> = node.children.iter().map(|c| eg.find(*c)).collect();
            let cyclic = extract::order(&eg, &below, &choice).contains(&root);
            (!cyclic).then(|| unload(graph, &eg, &class_of, &[root], &choice).expect("well typed"))
        })
        .collect();
    (graphs, report.applications[0].1)
}

#[test]
fn every_rule_computes_what_was_there() {
    for name in rules::all().iter().map(|r| r.name) {
        let mut fired = 0;
        for case in 0..CASES {
            let rule = rules::all().into_iter().find(|r| r.name == name).expect("listed");
            let class = rule.class;
            let mut b = Build { g: Graph::new("t"), r: Random(case * 7919 + 1) };
            let out = left_side(name, &mut b);
            b.g.add_output("y", out);
            let inputs: Vec<Tensor> = b.g.inputs.iter().map(|p| b.r.tensor(b.g.ty(p.value))).collect();
            let wanted = eval::run(&b.g, &inputs).expect("evaluates").remove(0);
            let (graphs, applied) = forms(&b.g, rule);
            fired += (applied > 0) as u64;
            for g in graphs {
                let found = eval::run(&g, &inputs).expect("evaluates").remove(0);
                compare(name, class, &wanted, &found, &g);
            }
        }
        assert!(fired * 2 > CASES, "{name} fired on {fired} of {CASES} graphs made for it");
    }
}

fn compare(name: &str, class: Class, wanted: &Tensor, found: &Tensor, g: &Graph) {
    assert_eq!(wanted.ty(), found.ty());
    if class == Class::Exact {
        assert_eq!(wanted.bytes(), found.bytes(), "{name} is not exact on\n{g}");
        return;
    }
    let (wanted, found) = (wanted.to_f32(), found.to_f32());
    let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (a, b) in wanted.iter().zip(&found) {
        assert!((a - b).abs() <= 1e-5 * largest.max(1.0), "{name}: {a} became {b} on\n{g}");
    }
}

#[test]
fn a_residual_block_is_fused_into_two_convolutions() {
    let mut b = Build { g: Graph::new("block"), r: Random(3) };
    let x = b.input(&[1, 4, 6, 6]);
    let conv = |b: &mut Build, x| {
        let w = b.constant(&[4, 4, 3, 3]);
        let op = Conv2d {
            layout: Layout::Nchw,
            stride: [1, 1],
            pad: [1; 4],
            dilation: [1, 1],
            groups: 1,
            pad_value: 0,
            bias: false,
            post: vec![],
        };
        let v = b.node(Op::Conv2d(op), &[x, w]);
        let (s, t, m) = (b.constant(&[4]), b.constant(&[4]), b.constant(&[4]));
        let variance = b.g.add_const(Tensor::new([4], &[1.0f32, 2.0, 0.5, 0.25]), origin("variance"));
        b.node(Op::BatchNorm { epsilon: F32(1e-5) }, &[v, s, t, m, variance])
    };
    let y = conv(&mut b, x);
    let y = b.node(Op::unary(Unary::Relu), &[y]);
    let y = conv(&mut b, y);
    let y = b.node(binary(Binary::Add), &[x, y]);
    let y = b.node(Op::unary(Unary::Relu), &[y]);
    b.g.add_output("y", y);
    let target = Target::parse("name = \"t\"\ndescription = \"\"\nbackend = \"c\"\nalignment = 4").expect("valid");
    let (g, report) = optimise(&b.g, &target, &rules::all()).expect("optimises");
    assert!(!report.limited);
    let mut ops: Vec<&str> = g
        .values()
        .filter(|(id, v)| {
            matches!(&v.def, Def::Node { inputs, .. } if inputs.iter().any(|i| !constant_below(&g, *i)))
                && g.live()[id.index()]
        })
        .map(|(_, v)| match &v.def {
            Def::Node { op, .. } => op.name(),
            _ => "",
        })
        .collect();
    ops.sort();
    assert_eq!(ops, ["conv2d", "conv2d", "transpose", "transpose"], "{g}");
    let inputs = vec![b.r.tensor(b.g.ty(x))];
    let (wanted, found) = (eval::run(&b.g, &inputs).unwrap(), eval::run(&g, &inputs).unwrap());
    compare("all", Class::Reassociates, &wanted[0], &found[0], &g);
}

fn constant_below(g: &Graph, v: ValueId) -> bool {
    match &g.value(v).def {
        Def::Const(_) => true,
        Def::Input(_) => false,
        Def::Node { inputs, .. } => inputs.iter().all(|i| constant_below(g, *i)),
    }
}

#[test]
fn a_graph_beyond_the_limit_is_left_alone_with_a_warning() {
    let mut g = Graph::new("chain");
    let mut v = g.add_input("x", TensorType::new(DType::F32, [1]));
    for _ in 0..VALUE_LIMIT {
        v = g.add_node(Op::unary(Unary::Relu), vec![v], origin("relu")).expect("well typed");
    }
    g.add_output("y", v);
    let target = Target::parse("name = \"t\"\ndescription = \"\"\nbackend = \"c\"\nalignment = 4").expect("valid");
    let warnings = std::cell::RefCell::new(vec![]);
    let cx = PassCx { warn: &|text| warnings.borrow_mut().push(text), ..PassCx::quiet(&target) };
    assert_eq!(Optimise.run(&mut g, &cx), Ok(Changed::No));
    assert_eq!(g.len(), VALUE_LIMIT + 1);
    assert!(warnings.into_inner()[0].starts_with("the graph has 3001 values"));
}
