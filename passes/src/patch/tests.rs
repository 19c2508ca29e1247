//! Random chains, split in strips, give the bits that they gave before.

use super::*;
use mcc_ir::graph::Origin;
use mcc_ir::op::{Binary, Conv2d, Pool2d, PoolKind, Rounding, Step, Unary};
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{DType, Tensor, TensorType, eval};
use proptest::prelude::*;

/// What the next operator of a chain is, and its numbers.
#[derive(Clone, Debug)]
struct Link {
    kind: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 4],
    dilation: [usize; 2],
    channels: usize,
    residual: bool,
}

fn link() -> impl Strategy<Value = Link> {
    let pair = |most: usize| [1..=most, 1..=most];
    let pad = [0usize..3, 0..3, 0..3, 0..3];
    (0usize..7, pair(4), pair(2), pad, pair(2), 1usize..5, any::<bool>()).prop_map(
        |(kind, kernel, stride, pad, dilation, channels, residual)| Link {
            kind,
            kernel,
            stride,
            pad,
            dilation,
            channels,
            residual,
        },
    )
}

/// Small numbers that repeat with no period of a shape.
fn fill(ty: TensorType, salt: usize) -> Tensor {
    let values: Vec<i64> = (0..ty.elements()).map(|i| ((i * 37 + salt * 11 + i / 7) % 41) as i64 - 20).collect();
    if ty.dtype == DType::F32 {
        let values: Vec<f32> = values.iter().map(|v| *v as f32 / 7.0).collect();
        return Tensor::new(ty.shape, &values);
    }
    Tensor::from_i64(ty, &values)
}

struct Chain {
    graph: Graph,
    layout: Layout,
    float: bool,
    last: ValueId,
    salt: usize,
}

impl Chain {
    fn constant(&mut self, dtype: DType, shape: &[usize]) -> ValueId {
        self.salt += 1;
        self.graph.add_const(fill(TensorType::new(dtype, shape), self.salt), Origin::default())
    }

    fn channels(&self) -> usize {
        self.graph.ty(self.last).shape[if self.layout == Layout::Nhwc { 3 } else { 1 }]
    }

    /// Adds an operator where its input is large enough for it.
    fn add(&mut self, op: Op, more: Vec<ValueId>) {
        let inputs = [vec![self.last], more].concat();
        if let Ok(v) = self.graph.add_node(op, inputs, Origin::default()) {
            let elements = self.graph.ty(v).elements();
            if elements > 0 && elements < 5000 {
                self.last = v;
            }
        }
    }

    fn conv(&mut self, l: &Link, depthwise: bool) {
        let (nhwc, from) = (self.layout == Layout::Nhwc, self.channels());
        let (groups, to) = if depthwise { (from, from) } else { (1, l.channels) };
        let [h, w] = l.kernel;
        let shape = if nhwc { [to, h, w, from / groups] } else { [to, from / groups, h, w] };
        let weights = self.constant(if self.float { DType::F32 } else { DType::I8 }, &shape);
        let bias = self.constant(if self.float { DType::F32 } else { DType::I32 }, &[to]);
        let scale = self.graph.add_const(Tensor::new([1], &[0.013f32]), Origin::default());
        let requant = Step::Requant { rounding: Rounding::F32HalfEven, zero: 3, lo: -128, hi: 127, dtype: DType::I8 };
        let (post, mut more) = if self.float {
            (vec![Step::Unary(Unary::Relu)], vec![weights, bias])
        } else {
            (vec![requant], vec![weights, bias, scale])
        };
        let mut op = Conv2d {
            layout: self.layout,
            stride: l.stride,
            pad: l.pad,
            dilation: l.dilation,
            groups,
            pad_value: if self.float { 0 } else { 3 },
            bias: true,
            post,
        };
        // A residual in the epilogue needs the shape of the result.
        if l.residual && self.float {
            let plain = Op::Conv2d(op.clone());
            let types: Vec<&TensorType> = [self.last].iter().chain(&more).map(|v| self.graph.ty(*v)).collect();
            if ops::infer(&plain, &types).is_ok_and(|ty| ty == *self.graph.ty(self.last)) {
                op.post.push(Step::Binary { op: Binary::Add, swapped: false, dequant: None });
                more.push(self.last);
            }
        }
        self.add(Op::Conv2d(op), more);
    }

    fn pool(&mut self, l: &Link, kind: PoolKind) {
        let q = QuantParams { scale: F32(0.5), zero_point: 1 };
        let average = kind != PoolKind::Max;
        let dequant = (average && !self.float).then_some(q);
        let post =
            if dequant.is_some() { vec![Step::Quant { q, lo: -128, hi: 127, dtype: DType::I8 }] } else { vec![] };
        let op = Pool2d {
            kind,
            layout: self.layout,
            kernel: l.kernel,
            stride: l.stride,
            pad: l.pad,
            dilation: l.dilation,
            dequant,
            post,
        };
        self.add(Op::Pool2d(op), vec![]);
    }

    fn link(&mut self, l: &Link) {
        match l.kind {
            0 | 1 => self.conv(l, false),
            2 => self.conv(l, true),
            3 => self.pool(l, PoolKind::Max),
            4 => self.pool(l, PoolKind::Average { count_include_pad: l.residual }),
            5 if self.float => {
                // By channel, then with itself.
                let shape =
                    if self.layout == Layout::Nhwc { vec![self.channels()] } else { vec![self.channels(), 1, 1] };
                let (scale, skip) = (self.constant(DType::F32, &shape), self.last);
                self.add(Op::binary(Binary::Mul), vec![scale]);
                self.add(Op::binary(Binary::Add), vec![skip]);
            }
            _ => {
                let channel = if self.layout == Layout::Nhwc { 3 } else { 1 };
                let other = self.last;
                self.add(Op::Concat { axis: channel }, vec![other]);
            }
        }
    }
}

fn chain(float: bool, nhwc: bool, height: usize, links: &[Link]) -> Graph {
    let dtype = if float { DType::F32 } else { DType::I8 };
    let mut graph = Graph::new("chain");
    // The source is the input in the other layout: the part begins with a transposition.
    let shape = if nhwc { vec![1, 2, height, 5] } else { vec![1, height, 5, 2] };
    let x = graph.add_input("x", TensorType::new(dtype, shape));
    let perm = if nhwc { vec![0, 2, 3, 1] } else { vec![0, 3, 1, 2] };
    let last = graph.add_node(Op::Transpose { perm }, vec![x], Origin::default()).unwrap();
    let layout = if nhwc { Layout::Nhwc } else { Layout::Nchw };
    let mut chain = Chain { graph, layout, float, last, salt: 0 };
    links.iter().for_each(|l| chain.link(l));
    let (mut graph, y) = (chain.graph, chain.last);
    let y = graph.add_node(Op::Map(vec![]), vec![y], Origin::default()).unwrap();
    graph.add_output("y", y);
    graph
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn strips_have_the_bits_of_the_whole(
        float in any::<bool>(),
        nhwc in any::<bool>(),
        height in 4usize..24,
        links in proptest::collection::vec(link(), 1..7),
        strips in 2usize..7,
        from in 0usize..4,
    ) {
        let graph = chain(float, nhwc, height, &links);
        let uses = graph.use_counts();
        let operators: Vec<ValueId> = graph.values().map(|(id, _)| id).filter(|id| graph.node(*id).is_some()).collect();
        let source = if from == 0 { graph.inputs[0].value } else { operators[(from - 1).min(operators.len() - 1)] };
        for &cut in &operators {
            let Some(region) = Region::find(&graph, &uses, source, cut) else { continue };
            let Some(split) = region.split(&graph, strips).unwrap() else { continue };
            mcc_ir::verify::verify(&split).unwrap();
            let x = fill(graph.ty(graph.inputs[0].value).clone(), 5);
            prop_assert_eq!(eval::run(&split, std::slice::from_ref(&x)).unwrap(), eval::run(&graph, &[x]).unwrap());
        }
    }
}

/// Two convolutions of 3 x 3 on 16 rows in two strips: the first computes one row twice on each side of the cut.
#[test]
fn neighbours_share_the_rows_that_they_need() {
    let l = |kind| Link {
        kind,
        kernel: [3, 3],
        stride: [1, 1],
        pad: [1; 4],
        dilation: [1, 1],
        channels: 4,
        residual: false,
    };
    let graph = chain(true, true, 16, &[l(0), l(0)]);
    let operators: Vec<ValueId> = graph.values().map(|(id, _)| id).filter(|id| graph.node(*id).is_some()).collect();
    let region = Region::find(&graph, &graph.use_counts(), graph.inputs[0].value, operators[2]).unwrap();
    assert_eq!(region.nodes, operators[..3]);
    let strips = region.strips(&graph, 2);
    let needs: Vec<_> = strips.iter().map(|rows| region.needs(&graph, *rows).unwrap()).collect();
    let of = |strip: usize, v: ValueId| (needs[strip][&v].from, needs[strip][&v].to);
    assert_eq!([of(0, operators[1]), of(1, operators[1])], [(0, 9), (7, 16)]);
    assert_eq!([of(0, region.source), of(1, region.source)], [(0, 10), (6, 16)]);
    let macs = |n: usize, channels: usize| (n * 5 * 4 * 9 * channels) as u64;
    assert_eq!(region.macs(&graph, &needs), macs(18, 2) + macs(16, 4));
    // A part that something else reads is none; nor is one that the source does not feed alone.
    let mut read = graph.clone();
    read.add_output("inner", operators[1]);
    assert_eq!(Region::find(&read, &read.use_counts(), read.inputs[0].value, operators[2]), None);
    assert_eq!(Region::find(&graph, &graph.use_counts(), operators[2], operators[1]), None);
}
