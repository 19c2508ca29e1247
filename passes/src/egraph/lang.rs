//! The language of the e-graph and its analysis.

use egg::{Analysis, DidMerge, Id, Language};
use mcc_ir::graph::{Graph, ValueId};
use mcc_ir::op::Op;
use mcc_ir::types::TensorType;
use mcc_ir::{Tensor, ops};
use std::fmt;

/// What a node is, without its children.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Head {
    Input(u32, TensorType),
    Const(Tensor),
    Op(Op),
}

impl Head {
    fn rank(&self) -> u8 {
        match self {
            Head::Input(..) => 0,
            Head::Const(_) => 1,
            Head::Op(_) => 2,
        }
    }
}

/// A node of the e-graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub head: Head,
    pub children: Vec<Id>,
}

impl Node {
    pub fn op(&self) -> Option<&Op> {
        match &self.head {
            Head::Op(op) => Some(op),
            _ => None,
        }
    }
}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Node {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Inputs, then constants by type and bytes, then operators.
        match (&self.head, &other.head) {
            (Head::Input(a, _), Head::Input(b, _)) => a.cmp(b),
            (Head::Const(a), Head::Const(b)) => a.ty().cmp(b.ty()).then_with(|| a.bytes().cmp(b.bytes())),
            (Head::Op(a), Head::Op(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
        .then_with(|| self.children.cmp(&other.children))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.head {
            Head::Input(i, ty) => write!(f, "input{i}: {ty}"),
            Head::Const(t) => write!(f, "const {}", t.ty()),
            Head::Op(op) => f.write_str(op.name()),
        }
    }
}

impl Language for Node {
    type Discriminant = (std::mem::Discriminant<Head>, Option<std::mem::Discriminant<Op>>);

    fn discriminant(&self) -> Self::Discriminant {
        (std::mem::discriminant(&self.head), self.op().map(std::mem::discriminant))
    }

    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

pub type EGraph = egg::EGraph<Node, Types>;

/// The analysis: types, constness, and provenance.
#[derive(Clone, Debug, Default)]
pub struct Types {
    /// The first ill-typed union.
    pub fault: Option<String>,
    /// For each original value, the values that it depends on, itself included: bit v of word v / 64.
    pub depends: Vec<Vec<u64>>,
}

impl Types {
    /// Records what each value of the original graph depends on.
    pub fn new(graph: &Graph) -> Types {
        let words = graph.len().div_ceil(64);
        let mut depends: Vec<Vec<u64>> = Vec::with_capacity(graph.len());
        for (id, _) in graph.values() {
            let mut set = vec![0; words];
            set[id.index() / 64] |= 1 << (id.index() % 64);
            if let Some((_, inputs)) = graph.node(id) {
                for v in inputs {
                    set.iter_mut().zip(&depends[v.index()]).for_each(|(a, b)| *a |= b);
                }
            }
            depends.push(set);
        }
        Types { fault: None, depends }
    }
}

#[derive(Clone, Debug)]
pub struct Data {
    pub ty: TensorType,
    /// Whether the class depends on no input.
    pub is_const: bool,
    /// The original value that the class stands for.
    pub carrier: Option<ValueId>,
}

impl Analysis<Node> for Types {
    type Data = Data;

    fn make(eg: &mut EGraph, node: &Node, _: Id) -> Data {
        let (ty, is_const) = match &node.head {
            Head::Input(_, ty) => (ty.clone(), false),
            Head::Const(t) => (t.ty().clone(), true),
            Head::Op(op) => {
                let types: Vec<&TensorType> = node.children.iter().map(|c| &eg[*c].data.ty).collect();
                let ty = ops::infer(op, &types).expect("nodes are checked before they are added");
                (ty, node.children.iter().all(|c| eg[*c].data.is_const))
            }
        };
        Data { ty, is_const, carrier: None }
    }

    fn merge(&mut self, a: &mut Data, b: Data) -> DidMerge {
        if a.ty != b.ty && self.fault.is_none() {
            self.fault = Some(format!("a rule joins {} with {}", a.ty, b.ty));
        }
        let before = (a.is_const, a.carrier);
        a.is_const |= b.is_const;
        a.carrier = match (a.carrier, b.carrier) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        };
        DidMerge(before != (a.is_const, a.carrier), (a.is_const, a.carrier) != (b.is_const, b.carrier))
    }
}

/// What rules see of the e-graph.
pub struct Rewriter<'a> {
    pub eg: &'a mut EGraph,
}

impl Rewriter<'_> {
    /// Adds an operator that stands for the same original value as `like`. `None` where it does not type-check.
    ///
    /// Of the permutations that move the same data, because they differ in dimensions of 1 only, the one is taken that keeps
    /// those in order.
    pub fn add(&mut self, mut op: Op, children: Vec<Id>, like: Id) -> Option<Id> {
        if let Op::Transpose { perm } = &mut op {
            let shape = &self.eg[children[0]].data.ty.shape;
            let is_unit = |d: &usize| shape.get(*d) == Some(&1);
            let mut units: Vec<usize> = perm.iter().copied().filter(is_unit).collect();
            units.sort_unstable();
            let mut units = units.into_iter();
            for p in perm.iter_mut().filter(|p| is_unit(p)) {
                *p = units.next().expect("as many as were taken");
            }
        }
        let types: Vec<&TensorType> = children.iter().map(|c| &self.eg[*c].data.ty).collect();
        ops::infer(&op, &types).ok()?;
        let id = self.eg.add(Node { head: Head::Op(op), children });
        let carrier = self.eg[like].data.carrier;
        let data = &mut self.eg[id].data;
        if data.carrier.is_none() && !data.is_const {
            data.carrier = carrier;
        }
        Some(id)
    }

    pub fn add_const(&mut self, tensor: Tensor) -> Id {
        self.eg.add(Node { head: Head::Const(tensor), children: vec![] })
    }

    pub fn ty(&self, id: Id) -> &TensorType {
        &self.eg[id].data.ty
    }

    pub fn is_const(&self, id: Id) -> bool {
        self.eg[id].data.is_const
    }

    /// The tensor of a class that holds a constant leaf.
    pub fn constant(&self, id: Id) -> Option<&Tensor> {
        self.nodes(id).find_map(|n| match &n.head {
            Head::Const(t) => Some(t),
            _ => None,
        })
    }

    /// The forms of a class.
    pub fn nodes(&self, id: Id) -> impl Iterator<Item = &Node> {
        self.eg[id].nodes.iter()
    }

    /// The operators of a class that `wanted` accepts, with their inputs.
    pub fn ops(&self, id: Id, wanted: impl Fn(&Op) -> bool) -> Vec<(Op, Vec<Id>)> {
        self.nodes(id).filter_map(|n| Some((n.op().filter(|op| wanted(op))?.clone(), n.children.clone()))).collect()
    }

    /// Whether the original value that `a` stands for depends on the one that `b` stands for.
    pub fn depends_on(&self, a: Id, b: Id) -> bool {
        match (self.eg[a].data.carrier, self.eg[b].data.carrier) {
            (Some(a), Some(b)) => self.eg.analysis.depends[a.index()][b.index() / 64] >> (b.index() % 64) & 1 == 1,
            _ => false,
        }
    }
}
