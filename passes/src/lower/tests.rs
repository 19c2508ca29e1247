//! Choices among implementations, their price, and their reasons.

use super::explain::{Choice, Verdict, explain};
use super::*;
use mcc_ir::DType;
use mcc_ir::catalogue::{NEST, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::graph::origin;
use mcc_ir::op::{MatMul, PadMode};

const CORE: &str = "name = 'core'\ndescription = ''\nbackend = 'c'\nalignment = 8";

fn offer<const CYCLES: usize, const CODE: usize, const SCRATCH: usize>(
    spec: &KernelSpec<'_>,
    _: &Target,
) -> Option<Offer> {
    matches!(spec.op, Op::MatMul(_)).then(|| Offer {
        packings: vec![Packing::None; spec.arg_types.len()],
        scratch_bytes: SCRATCH,
        work: Work::cycles(CYCLES as f64),
        code: Code::bytes(CODE),
        overlap: None,
    })
}

/// A product of 10 x 100 by 100 x 100, named "dense", then a result of so many bytes.
fn product(then: usize) -> Graph {
    let mut graph = Graph::new("product");
    let x = graph.add_input("x", TensorType::new(DType::F32, [10, 100]));
    let w = graph.add_const(Tensor::new([100, 100], &[0.5f32; 10_000]), Origin::default());
    let op = Op::MatMul(MatMul { trans_b: false, bias: false, post: vec![] });
    let y = graph.add_node(op, vec![x, w], origin("dense")).unwrap();
    let pad = Op::Pad { before: vec![0, 0], after: vec![0, then / 40], mode: PadMode::Edge };
    let y = graph.add_node(pad, vec![y], Origin::default()).unwrap();
    graph.add_output("y", y);
    graph
}

/// Working memory is worth its cycles where the arena is at its peak, and costs nothing elsewhere.
#[test]
fn the_goal_weighs_cycles_against_memory_at_the_peak() {
    let catalogue = [
        Implementation { id: "roomy", offer: offer::<100_000, 0, 8_000> },
        Implementation { id: "tight", offer: offer::<300_000, 0, 80> },
    ];
    let target = Target::parse(CORE).unwrap();
    let chosen = |graph: &Graph, goal| {
        let plan = lower(graph, &target, &catalogue, Options { goal, ..Options::default() }).unwrap();
        (plan.kernels[0].implementation, plan.arena_bytes)
    };
    // Two tensors of 4,000 bytes beside the working memory, then one of them beside the larger result.
    let small = product(400);
    assert_eq!(chosen(&small, Goal::Time), ("roomy", 16_000));
    assert_eq!(chosen(&small, Goal::Balanced), ("tight", 8_400));
    let large = product(20_000);
    assert_eq!(chosen(&large, Goal::Balanced), ("roomy", 28_000));
}

/// Where two kernels share the peak, one alone would gain nothing.
#[test]
fn kernels_at_one_peak_give_way_together() {
    let catalogue = [
        Implementation { id: "roomy", offer: offer::<100_000, 0, 8_000> },
        Implementation { id: "tight", offer: offer::<300_000, 0, 80> },
    ];
    let mut graph = Graph::new("products");
    let mut y = graph.add_input("x", TensorType::new(DType::F32, [10, 100]));
    let w = graph.add_const(Tensor::new([100, 100], &[0.5f32; 10_000]), Origin::default());
    for _ in 0..2 {
        let op = Op::MatMul(MatMul { trans_b: false, bias: false, post: vec![] });
        y = graph.add_node(op, vec![y, w], Origin::default()).unwrap();
    }
    graph.add_output("y", y);
    let plan = lower(&graph, &Target::parse(CORE).unwrap(), &catalogue, Options::default()).unwrap();
    assert_eq!(plan.kernels.iter().map(|k| k.implementation).collect::<Vec<_>>(), ["tight"; 2]);
    assert_eq!(plan.arena_bytes, 8_080);
}

/// A product that takes a million cycles as a nest, beside a small kernel and a fast one, whose code is worth it where
/// flash costs nothing.
#[test]
fn the_goal_weighs_cycles_against_flash() {
    let catalogue = [
        Implementation { id: "fast", offer: offer::<100_000, 60_000, 0> },
        Implementation { id: "small", offer: offer::<300_000, 2_000, 0> },
    ];
    let graph = product(400);
    let chosen = |text: &str, goal| {
        let target = Target::parse(text).unwrap();
        let plan = lower(&graph, &target, &catalogue, Options { goal, ..Options::default() }).unwrap();
        plan.kernels[0].implementation
    };
    assert_eq!(chosen(CORE, Goal::Time), "fast");
    assert_eq!(chosen(CORE, Goal::Balanced), "small");
    assert_eq!(chosen(CORE, Goal::Size), NEST);
    assert_eq!(chosen(&CORE.replace("'c'", "'jit'"), Goal::Size), "fast");
}

const CHOICES: [Implementation; 5] = [
    Implementation { id: "usual", offer: offer::<200_000, 2_000, 0> },
    Implementation { id: "slow", offer: offer::<300_000, 2_000, 0> },
    Implementation { id: "large", offer: offer::<150_000, 90_000, 0> },
    Implementation { id: "roomy", offer: offer::<150_000, 2_000, 8_000> },
    Implementation { id: "unfit", offer: |_, _| None },
];

fn explained(force: Vec<Force>) -> Result<Choice> {
    let target = Target::parse(CORE).unwrap();
    let options = Options { force, ..Options::default() };
    let plan = lower(&product(400), &target, &CHOICES, options.clone())?;
    Ok(explain(&plan, &target, &CHOICES, &options).remove(0))
}

#[test]
fn each_alternative_has_its_reason() {
    let choice = explained(vec![]).unwrap();
    let verdicts: Vec<(&str, Verdict)> = choice.alternatives.iter().map(|a| (a.implementation, a.verdict)).collect();
    let Verdict::Flash { cycles_per_byte } = verdicts[1].1 else { panic!("{verdicts:?}") };
    assert_eq!(
        verdicts,
        [
            ("usual", Verdict::Chosen),
            ("large", Verdict::Flash { cycles_per_byte }),
            ("roomy", Verdict::Memory),
            ("slow", Verdict::Slower),
            (NEST, Verdict::Slower),
        ]
    );
    assert_eq!(choice.unfit, ["unfit"]);
}

#[test]
fn a_node_can_be_forced() {
    let force = |node: &str, implementation: &str| {
        explained(vec![Force { node: node.into(), implementation: implementation.into() }])
    };
    for id in ["slow", "large", "roomy", NEST] {
        let choice = force("dense", id).unwrap();
        assert_eq!((choice.alternatives[0].implementation, choice.alternatives[0].verdict), (id, Verdict::Chosen));
        assert!(choice.alternatives[1..].iter().all(|a| a.verdict == Verdict::Forced));
    }
    let error = |node, id| force(node, id).unwrap_err().to_string();
    assert_eq!(
        error("dense", "unfit"),
        "node \"dense\" cannot be computed by unfit on core; it can by large, nest, roomy, slow, usual"
    );
    assert_eq!(error("dens", "slow"), "no node is named \"dens\"; layers are \"dense\"");
}
