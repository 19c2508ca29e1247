//! The e-graph: one graph, all its equal forms, and the cheapest of them.
//!
//! The whole graph goes in. Attributes are the operators' payload, weights are leaves, and an operator on constants is a
//! derived leaf that is evaluated only where it is extracted (by the `fold-all` pass). Rules are directional and small; the
//! analysis carries each class's type, and a union of two types is an error. Limits count nodes and rounds, never time.

mod cost;
mod extract;
mod lang;
mod rules;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::pass::{Changed, Class, Pass, PassCx};
use egg::{Id, Language};
use lang::{EGraph, Head, Node, Types};
use mcc_ir::Target;
use mcc_ir::graph::{Def, Graph, Origin, ValueId, join_origins};
use std::collections::{HashMap, HashSet};

pub use rules::{Rule, all as rules};

/// Larger graphs are left as they are: extraction takes time and memory in the square of their size.
const VALUE_LIMIT: usize = 3000;
/// The e-graph stops growing at so many nodes.
const NODE_LIMIT: usize = 100_000;
/// Rounds of all rules.
const ROUND_LIMIT: usize = 40;

/// What saturation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub nodes: usize,
    pub classes: usize,
    pub rounds: usize,
    /// Whether a limit ended it before nothing changed any more.
    pub limited: bool,
    /// How often each rule joined two classes, in the order of the rule table.
    pub applications: Vec<(&'static str, usize)>,
}

/// The pass `egraph`: fusion, batch-norm folding, layout and algebra, extracted for the target.
pub struct Optimise;

impl Pass for Optimise {
    fn name(&self) -> &'static str {
        "egraph"
    }
    fn summary(&self) -> &'static str {
        "fold batch norms, fuse epilogues, choose NHWC, cancel transposes: one e-graph, cheapest form extracted"
    }
    fn class(&self) -> Class {
        Class::Reassociates
    }
    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Changed> {
        if graph.len() > VALUE_LIMIT {
            let size = graph.len();
            (cx.warn)(format!(
                "the graph has {size} values, more than the {VALUE_LIMIT} that are optimised: it stays as it is"
            ));
            return Ok(Changed::No);
        }
        let (new, report) = optimise(graph, cx.target, &rules::all())?;
        if report.limited {
            (cx.warn)(format!(
                "the e-graph stopped at {} nodes after {} rounds, before it was complete: a better form may exist",
                report.nodes, report.rounds
            ));
        }
        *graph = new;
        Ok(Changed::Yes)
    }
}

/// Saturates a graph under `rules` and extracts its cheapest form on `target`.
///
/// # Errors
/// [`Error::Pass`] where a rule makes two forms of different type equal: a fault of the rule.
pub fn optimise(graph: &Graph, target: &Target, rules: &[Rule]) -> Result<(Graph, Report)> {
    rewrite(graph, target, rules, Forms::Cheapest)
}

/// Saturates a graph under one rule, and takes the form that the rule gave wherever it gave one, cheaper or not. This shows
/// what a rule does by itself; [`Report::applications`] tells whether it applied.
///
/// # Errors
/// As [`optimise`].
pub fn apply_alone(graph: &Graph, target: &Target, rule: Rule) -> Result<(Graph, Report)> {
    rewrite(graph, target, &[rule], Forms::New)
}

/// Which forms extraction takes.
enum Forms {
    Cheapest,
    /// An operator of the graph only where no rule gave another form; the cheapest among the new ones.
    New,
}

/// Cycles that an operator of the graph costs where a rule gave another form and that one is to be taken: more than any
/// graph takes, and little enough that a sum with them still tells single cycles apart.
const SUPERSEDED: f64 = 1e12;

fn rewrite(graph: &Graph, target: &Target, rules: &[Rule], forms: Forms) -> Result<(Graph, Report)> {
    let fail = |reason: String| Error::Pass { pass: "egraph", source: mcc_ir::Error::Type { op: "egraph", reason } };
    let (mut eg, class_of) = load(graph);
    let loaded: Vec<Node> = eg.classes().flat_map(|c| &c.nodes).filter(|n| n.op().is_some()).cloned().collect();
    let report = saturate(&mut eg, rules);
    if let Some(fault) = eg.analysis.fault.take() {
        return Err(fail(fault));
    }
    let superseded = match forms {
        Forms::Cheapest => HashSet::new(),
        Forms::New => superseded(&eg, loaded),
    };
    let cost = |node: &Node| cost::cycles(&eg, node, target) + if superseded.contains(node) { SUPERSEDED } else { 0.0 };
    let roots: Vec<Id> = graph.outputs.iter().map(|p| eg.find(class_of[&p.value])).collect();
    let choice = extract::extract(&eg, &roots, &cost);
    let new =
        unload(graph, &eg, &class_of, &roots, &choice).map_err(|source| Error::Pass { pass: "egraph", source })?;
    Ok((new, report))
}

/// Of the operators that were loaded, those whose class holds another form by now.
fn superseded(eg: &EGraph, loaded: Vec<Node>) -> HashSet<Node> {
    let now = loaded.into_iter().map(|n| n.map_children(|c| eg.find(c)));
    now.filter(|n| eg.lookup(n.clone()).is_some_and(|class| eg[class].nodes.len() > 1)).collect()
}

/// The e-graph of the live values of a graph, and the class of each.
fn load(graph: &Graph) -> (EGraph, HashMap<ValueId, Id>) {
    let live = graph.live();
    let mut eg = EGraph::new(Types::new(graph));
    let mut class_of = HashMap::new();
    for (id, value) in graph.values() {
        if !live[id.index()] {
            continue;
        }
        let node = match &value.def {
            Def::Input(i) => Node { head: Head::Input(*i as u32, value.ty.clone()), children: vec![] },
            Def::Const(t) => Node { head: Head::Const(t.clone()), children: vec![] },
            Def::Node { op, inputs } => {
                Node { head: Head::Op(op.clone()), children: inputs.iter().map(|v| class_of[v]).collect() }
            }
        };
        let class = eg.add(node);
        let carrier = &mut eg[class].data.carrier;
        *carrier = carrier.or(Some(id));
        class_of.insert(id, class);
    }
    eg.rebuild();
    (eg, class_of)
}

/// Applies all rules in rounds until nothing changes. A round looks only at nodes whose own class or whose inputs' classes
/// grew in the round before; when that finds nothing more, one round looks at every node.
fn saturate(eg: &mut EGraph, rules: &[Rule]) -> Report {
    let mut report = Report { applications: rules.iter().map(|r| (r.name, 0)).collect(), ..Report::default() };
    let mut sizes: HashMap<Id, usize> = HashMap::new();
    let mut everything = true;
    loop {
        let mut classes: Vec<Id> = eg.classes().map(|c| c.id).collect();
        classes.sort();
        let grown: HashSet<Id> =
            classes.iter().copied().filter(|c| sizes.get(c) != Some(&eg[*c].nodes.len())).collect();
        sizes = classes.iter().map(|c| (*c, eg[*c].nodes.len())).collect();
        let looked_at_everything = everything;
        let mut work: Vec<(Id, Node)> = Vec::new();
        for &class in &classes {
            for node in &eg[class].nodes {
                if everything || grown.contains(&class) || node.children.iter().any(|c| grown.contains(&eg.find(*c))) {
                    work.push((class, node.clone()));
                }
            }
        }
        let mut unions = 0;
        for (rule, count) in rules.iter().zip(&mut report.applications) {
            for (class, node) in &work {
                for new in (rule.apply)(&mut lang::Rewriter { eg }, *class, node) {
                    if eg.union(*class, new) {
                        count.1 += 1;
                        unions += 1;
                    }
                }
            }
            eg.rebuild();
        }
        report.rounds += 1;
        if (unions == 0 && looked_at_everything) || eg.analysis.fault.is_some() {
            break;
        }
        if report.rounds >= ROUND_LIMIT || eg.total_size() >= NODE_LIMIT {
            report.limited = true;
            break;
        }
        everything = unions == 0;
    }
    report.nodes = eg.total_size();
    report.classes = eg.number_of_classes();
    report
}

/// Builds the chosen form as a graph.
fn unload(
    graph: &Graph,
    eg: &EGraph,
    class_of: &HashMap<ValueId, Id>,
    roots: &[Id],
    choice: &HashMap<Id, Node>,
) -> mcc_ir::Result<Graph> {
    let mut out = Graph::new(graph.name.clone());
    let mut built: HashMap<Id, ValueId> = HashMap::new();
    for port in &graph.inputs {
        let new = out.add_input(port.name.clone(), graph.ty(port.value).clone());
        out.inputs.last_mut().expect("just added").quant = port.quant;
        built.insert(eg.find(class_of[&port.value]), new);
    }
    let order = extract::order(eg, roots, choice);
    let origins = Origins::new(graph, eg, &order);
    for class in order {
        if built.contains_key(&class) {
            continue;
        }
        let node = &choice[&class];
        let inputs: Vec<ValueId> = node.children.iter().map(|c| built[&eg.find(*c)]).collect();
        let origin = origins.of(class);
        let new = match &node.head {
            Head::Const(t) => out.add_const(t.clone(), origin),
            Head::Op(op) => out.add_node(op.clone(), inputs, origin)?,
            Head::Input(..) => unreachable!("inputs are built first"),
        };
        built.insert(class, new);
    }
    for (port, root) in graph.outputs.iter().zip(roots) {
        out.outputs.push(mcc_ir::graph::Port { value: built[root], ..port.clone() });
    }
    Ok(out)
}

/// The model's names for extracted classes.
///
/// Each class carries the original value that it stands for, in whatever layout. An extracted operator computes that value
/// from the values that its own inputs stand for: its names are those of the original operators in between.
struct Origins<'a> {
    graph: &'a Graph,
    eg: &'a EGraph,
    /// The values that extracted classes stand for.
    kept: HashSet<ValueId>,
}

impl<'a> Origins<'a> {
    fn new(graph: &'a Graph, eg: &'a EGraph, order: &[Id]) -> Origins<'a> {
        let kept = order.iter().filter_map(|c| eg[*c].data.carrier).collect();
        Origins { graph, eg, kept }
    }

    fn of(&self, class: Id) -> Origin {
        let Some(value) = self.eg[class].data.carrier else { return Origin::from([]) };
        let mut found = vec![value];
        let mut next = 0;
        while next < found.len() {
            if let Some((_, inputs)) = self.graph.node(found[next]) {
                for &v in inputs {
                    if self.graph.node(v).is_some() && !self.kept.contains(&v) && !found.contains(&v) {
                        found.push(v);
                    }
                }
            }
            next += 1;
        }
        found.sort();
        join_origins(found.iter().map(|v| &self.graph.value(*v).origin))
    }
}
