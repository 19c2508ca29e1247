//! The import of a whole model: checks of the file, inputs and constants, nodes in order, local functions inlined.

use crate::cx::Cx;
use crate::error::{Diagnostic, Error, Fault, clip, code, quote};
use crate::external::Files;
use crate::node::Node;
use crate::proto::{self, data_type};
use crate::{ImportOptions, inputs, ops, tensor};
use bytes::Bytes;
use mcc_ir::graph::{Def, Graph, origin};
use mcc_ir::op::Op;
use mcc_ir::types::F32;
use mcc_ir::{QuantParams, Tensor, ValueId};
use prost::Message;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::Path;

/// The oldest version of the standard operators that is read.
pub const OLDEST_OPSET: i64 = 7;
/// The newest version of the standard operators that is read: ONNX 1.23.
pub const NEWEST_OPSET: i64 = 28;
/// The newest version of the file format that is read.
const NEWEST_IR: i64 = 14;
/// How deep local functions may call each other.
const MAX_CALLS: usize = 100;
/// How many nodes may be visited, those of inlined functions counted at each call.
const MAX_NODES: usize = 200_000;
/// How many attributes a node may have.
const MAX_ATTRIBUTES: usize = 256;
/// How many characters of a name are kept for nodes of local functions, which a small file can call many times.
const MAX_INNER_NAME: usize = 200;

pub(crate) fn import(bytes: Bytes, folder: Option<&Path>, options: &ImportOptions) -> Result<Graph, Error> {
    let size = bytes.len();
    let model: proto::Model = decode(bytes)?;
    let graph = model.graph.as_ref().ok_or_else(|| {
        Diagnostic::file(code::NO_GRAPH, "the file holds no graph", "check that it is an ONNX model, and whole")
    })?;
    if let Some(ir) = model.ir_version.filter(|ir| *ir > NEWEST_IR) {
        let reason = format!("the file has IR version {ir}, the newest known is {NEWEST_IR} (ONNX 1.23)");
        return Err(Diagnostic::file(code::OPSET, reason, "save it with an older ONNX release").into());
    }
    let opsets = opsets(&model.opset_import)?;
    let Some(&opset) = opsets.get("") else {
        let reason = "the file does not say which version of the standard operators it uses";
        return Err(Diagnostic::file(code::OPSET, reason, "export it again with an explicit opset, such as 17").into());
    };
    check_opset(opset)?;
    if let Some(sparse) = graph.sparse_initializer.first() {
        let name = sparse.values.as_ref().map_or("", |v| &v.name);
        return Err(sparse_fault(name).into());
    }

    let cx = Cx::new(Graph::new(graph.name.clone()), Files::new(folder), size);
    let mut importer = Importer { cx, functions: HashMap::new(), nodes_left: MAX_NODES, diagnostics: vec![] };
    importer.add_functions(&model.functions)?;
    let mut scope = Scope { opsets, ..Scope::default() };
    importer.constants(graph, &mut scope)?;
    inputs::add(&mut importer.cx, graph, options, &mut scope)?;
    importer.run(&graph.node, &mut scope)?;
    if !importer.diagnostics.is_empty() {
        return Err(Error::Unsupported(importer.diagnostics));
    }
    importer.outputs(graph, &mut scope)?;
    finish(importer.cx.graph)
}

pub(crate) fn tensor(bytes: Bytes) -> Result<(String, Tensor), Error> {
    let proto: proto::TensorProto = decode(bytes)?;
    let value = tensor::decode(&proto, &mut Files::new(None))?;
    Ok((proto.name, value))
}

fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Error> {
    M::decode(bytes).map_err(|e| {
        let text = e.to_string();
        let d = if text.contains("recursion limit") {
            let help = "flatten nested subgraphs";
            Diagnostic::file(code::LIMIT, "messages in the file are nested more than 100 deep", help)
        } else {
            let reason = format!("not an ONNX file, or a truncated one: {}", clip(&text));
            Diagnostic::file(code::NOT_ONNX, reason, "check that the file is an ONNX model, and whole")
        };
        d.into()
    })
}

/// Versions by domain; the standard domain is the empty name.
fn opsets(imports: &[proto::OperatorSetId]) -> Result<HashMap<&str, i64>, Error> {
    let mut all = HashMap::new();
    for import in imports {
        let before = all.insert(standard(&import.domain), import.version);
        if before.is_some_and(|v| v != import.version) {
            let reason = format!("the file imports domain {} in two versions", quote(&import.domain));
            return Err(Diagnostic::file(code::OPSET, reason, "export it again").into());
        }
    }
    Ok(all)
}

/// The standard domain has two names.
fn standard(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn check_opset(version: i64) -> Result<(), Error> {
    let (reason, help) = if version > NEWEST_OPSET {
        let reason = format!("the file uses opset {version}, the newest known is {NEWEST_OPSET} (ONNX 1.23)");
        (reason, format!("export it with opset {NEWEST_OPSET} or older"))
    } else if version < OLDEST_OPSET {
        let reason = format!("the file uses opset {version}, the oldest supported is {OLDEST_OPSET}");
        (reason, "convert it with `onnx.version_converter.convert_version(model, 17)`".to_string())
    } else {
        return Ok(());
    };
    Err(Diagnostic::file(code::OPSET, reason, help).into())
}

pub(crate) fn sparse_fault(name: &str) -> Fault {
    Fault::new(
        code::SPARSE,
        format!("the sparse tensor {} is not supported", quote(name)),
        "store it as a dense tensor",
    )
}

/// What a name stands for.
#[derive(Clone)]
pub(crate) enum Entry {
    Value(ValueId),
    /// A constant of the file, added to the graph where it is used.
    Const(Tensor),
    /// The result of a node that has a diagnostic, or depends on one.
    Failed,
    /// An output that its operator does not give here.
    Absent(String),
    /// An optional input that the caller of a local function leaves out.
    Omitted,
}

/// The names of a graph or of one call of a local function.
#[derive(Default)]
pub(crate) struct Scope<'m> {
    pub names: HashMap<&'m str, Entry>,
    opsets: HashMap<&'m str, i64>,
    call: Option<Call<'m>>,
}

/// The call of a local function whose body is being imported.
struct Call<'m> {
    attributes: HashMap<&'m str, &'m proto::Attribute>,
    /// Names of the enclosing calls, each followed by a slash.
    prefix: String,
    depth: usize,
    /// Index of the outermost calling node.
    index: usize,
}

impl<'m> Scope<'m> {
    /// Defines a name, once.
    pub fn define(&mut self, name: &'m str, entry: Entry) -> Result<(), Fault> {
        match self.names.insert(name, entry) {
            None => Ok(()),
            Some(_) => Err(duplicate(name)),
        }
    }
}

fn duplicate(name: &str) -> Fault {
    Fault::new(code::GRAPH, format!("{} is defined twice", quote(name)), "give every tensor its own name")
}

type FunctionKey<'m> = (&'m str, &'m str, &'m str);

struct Importer<'m> {
    cx: Cx,
    functions: HashMap<FunctionKey<'m>, &'m proto::Function>,
    nodes_left: usize,
    diagnostics: Vec<Diagnostic>,
}

impl<'m> Importer<'m> {
    fn add_functions(&mut self, functions: &'m [proto::Function]) -> Result<(), Error> {
        for f in functions {
            if self.functions.insert((standard(&f.domain), &f.name, &f.overload), f).is_some() {
                let reason = format!("the local function {} is defined twice", quote(&f.name));
                return Err(Diagnostic::file(code::FUNCTION, reason, "export the model again").into());
            }
        }
        Ok(())
    }

    fn constants(&mut self, graph: &'m proto::Graph, scope: &mut Scope<'m>) -> Result<(), Error> {
        for t in &graph.initializer {
            if t.name.is_empty() {
                return Err(Fault::new(code::GRAPH, "an initializer has no name", "export the model again").into());
            }
            let value = tensor::decode(t, &mut self.cx.files)?;
            scope.define(&t.name, Entry::Const(value))?;
        }
        Ok(())
    }

    /// Imports nodes in an order in which every value is defined before it is read.
    fn run(&mut self, nodes: &'m [proto::Node], scope: &mut Scope<'m>) -> Result<(), Error> {
        for index in order(nodes, scope)? {
            self.nodes_left = self.nodes_left.checked_sub(1).ok_or_else(|| {
                let reason =
                    format!("the model has more than {MAX_NODES} nodes, counting local functions at each call");
                Diagnostic::file(code::LIMIT, reason, "split the model")
            })?;
            self.step(&nodes[index], index, scope)?;
        }
        Ok(())
    }

    fn step(&mut self, proto: &'m proto::Node, index: usize, scope: &mut Scope<'m>) -> Result<(), Error> {
        let domain = standard(&proto.domain);
        let opset = scope.opsets.get(domain).copied().unwrap_or(0);
        let name = display_name(proto, index);
        let mut node = Node {
            proto,
            opset,
            inputs: Vec::with_capacity(proto.input.len()),
            origin: origin(&match &scope.call {
                Some(call) => call.prefix.chars().chain(name.chars()).take(MAX_INNER_NAME).collect::<Cow<str>>(),
                None => name,
            }),
            attributes: vec![],
        };
        let mut failed = false;
        let mut fault = self.support(proto, domain, opset).err();
        for input in &proto.input {
            node.inputs.push(match self.read(input, scope) {
                Ok(v) => v,
                Err(None) => {
                    failed = true;
                    None
                }
                Err(Some(f)) => {
                    fault.get_or_insert(f);
                    None
                }
            });
        }
        if fault.is_none() {
            fault = attributes(proto, scope).map(|a| node.attributes = a).err();
        }
        let mut results = None;
        if fault.is_none() && !failed {
            let result = match ops::find(domain, &proto.op_type) {
                Some(op) => node.check_attributes(op.attributes).and_then(|()| (op.import)(&mut self.cx, &node)),
                None => {
                    let key = (domain, proto.op_type.as_str(), proto.overload.as_str());
                    // `support` has found it; errors inside are reported at the inner nodes.
                    match self.functions.get(&key) {
                        Some(f) => {
                            let entries = self.call(f, &node, index, scope)?;
                            return match entries {
                                Ok(entries) => bind(proto, entries, scope),
                                Err(f) => self.refuse(f, &node, index, scope),
                            };
                        }
                        None => Err(Fault::new(code::OPERATOR, "the operator is not known", "")),
                    }
                }
            };
            match result {
                Ok(values) => results = Some(values),
                Err(f) => fault = Some(f),
            }
        }
        if let Some(f) = fault {
            return self.refuse(f, &node, index, scope);
        }
        let entries = match results {
            None => vec![Entry::Failed; proto.output.len()],
            Some(values) => {
                let mut entries: Vec<Entry> = values.into_iter().map(Entry::Value).collect();
                for i in entries.len()..proto.output.len() {
                    let (op, shown) = (clip(&proto.op_type), quote(&node.origin[0]));
                    entries.push(Entry::Absent(format!("output {i} of {op} {shown} is not supported")));
                }
                entries
            }
        };
        bind(proto, entries, scope)
    }

    /// Records a diagnostic and marks the node's outputs.
    fn refuse(&mut self, f: Fault, node: &Node<'m>, index: usize, scope: &mut Scope<'m>) -> Result<(), Error> {
        let shown = |(v, name): (&Option<ValueId>, &String)| match v {
            Some(v) => format!("{} {}", quote(name), self.cx.ty(*v)),
            None => quote(name),
        };
        self.diagnostics.push(Diagnostic {
            code: f.code,
            node: node.origin[0].to_string(),
            index: Some(scope.call.as_ref().map_or(index, |c| c.index)),
            op_type: node.proto.op_type.clone(),
            domain: standard(&node.proto.domain).to_string(),
            opset: node.opset,
            inputs: node.inputs.iter().zip(&node.proto.input).take(16).map(shown).collect(),
            reason: f.reason,
            help: f.help,
        });
        bind(node.proto, vec![Entry::Failed; node.proto.output.len()], scope)
    }

    /// Whether there is an importer or a local function for a node.
    fn support(&self, proto: &proto::Node, domain: &str, opset: i64) -> Result<(), Fault> {
        let op = &proto.op_type;
        if domain.is_empty() && !(OLDEST_OPSET..=NEWEST_OPSET).contains(&opset) {
            let reason = format!("it uses opset {opset}, supported are {OLDEST_OPSET} to {NEWEST_OPSET}");
            return Err(Fault::new(code::OPSET, reason, "export the model with one of them"));
        }
        if let Some(found) = ops::find(domain, op) {
            return match opset >= found.since {
                true => Ok(()),
                false => Err(Fault::node(format!("{} exists since opset {}", clip(op), found.since))),
            };
        }
        if self.functions.contains_key(&(domain, op.as_str(), proto.overload.as_str())) {
            return Ok(());
        }
        let (reason, help) = ops::refusal(domain, op);
        Err(match domain.is_empty() {
            true => Fault::new(code::OPERATOR, reason, help),
            false => Fault::new(code::DOMAIN, reason, help),
        })
    }

    /// The value of a name; `Ok(None)` for an empty one, `Err(None)` where its producer has failed.
    fn read(&mut self, name: &'m str, scope: &mut Scope<'m>) -> Result<Option<ValueId>, Option<Fault>> {
        if name.is_empty() {
            return Ok(None);
        }
        match scope.names.get(name) {
            Some(Entry::Value(v)) => Ok(Some(*v)),
            Some(Entry::Const(t)) => {
                let v = self.cx.graph.add_const(t.clone(), origin(name));
                scope.names.insert(name, Entry::Value(v));
                Ok(Some(v))
            }
            Some(Entry::Omitted) => Ok(None),
            Some(Entry::Absent(reason)) => Err(Some(Fault::form(reason.clone(), "export the model without it"))),
            Some(Entry::Failed) | None => Err(None),
        }
    }

    /// Inlines a local function. The outer error ends the import, the inner one concerns the calling node.
    #[allow(clippy::type_complexity)]
    fn call(
        &mut self,
        function: &'m proto::Function,
        node: &Node<'m>,
        index: usize,
        caller: &Scope<'m>,
    ) -> Result<Result<Vec<Entry>, Fault>, Error> {
        let depth = caller.call.as_ref().map_or(0, |c| c.depth) + 1;
        if depth > MAX_CALLS {
            let reason = format!("local functions call each other more than {MAX_CALLS} deep");
            return Err(
                Diagnostic::file(code::LIMIT, reason, "inline them with `onnx.inliner` or remove the cycle").into()
            );
        }
        let bad = |reason: String| {
            let reason = format!("local function {}: {reason}", quote(&function.name));
            Ok(Err(Fault::new(code::FUNCTION, reason, "export the model again")))
        };
        if node.inputs.len() > function.input.len() || node.proto.output.len() > function.output.len() {
            return bad("it is called with too many inputs or outputs".into());
        }
        let mut attributes: HashMap<&str, &proto::Attribute> =
            function.attribute_proto.iter().map(|a| (a.name.as_str(), a)).collect();
        for (name, a) in &node.attributes {
            if !function.attribute.iter().any(|n| n == name) && !attributes.contains_key(name) {
                return bad(format!("it has no attribute {}", quote(name)));
            }
            attributes.insert(name, a);
        }
        let prefix = node.origin[0].chars().take(MAX_INNER_NAME).chain(['/']).collect();
        let call = Call { attributes, prefix, depth, index: caller.call.as_ref().map_or(index, |c| c.index) };
        let mut scope = Scope { opsets: opsets(&function.opset_import)?, call: Some(call), names: HashMap::new() };
        for (i, name) in function.input.iter().enumerate() {
            scope.define(name, node.optional(i).map_or(Entry::Omitted, Entry::Value))?;
        }
        self.run(&function.node, &mut scope)?;
        let mut entries = Vec::new();
        for name in &function.output {
            match scope.names.get(name.as_str()) {
                Some(entry) => entries.push(entry.clone()),
                None => return bad(format!("nothing defines its output {}", quote(name))),
            }
        }
        Ok(Ok(entries))
    }

    fn outputs(&mut self, graph: &'m proto::Graph, scope: &mut Scope<'m>) -> Result<(), Error> {
        let fault = |reason: String| Fault::new(code::GRAPH, reason, "export the model again");
        if graph.output.is_empty() {
            return Err(fault("the graph has no outputs".into()).into());
        }
        let mut seen = HashMap::new();
        for output in &graph.output {
            let name = output.name.as_str();
            if seen.insert(name, ()).is_some() {
                return Err(fault(format!("{} is an output twice", quote(name))).into());
            }
            let undefined = || fault(format!("nothing defines the output {}", quote(name)));
            let v = match self.read(name, scope) {
                Ok(v) => v.ok_or_else(undefined)?,
                Err(f) => return Err(f.unwrap_or_else(undefined).into()),
            };
            let declared = output.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).map_or(0, |t| t.elem_type);
            if let Some(d) = tensor::dtype(declared).filter(|d| *d != self.cx.dtype(v)) {
                let (ty, declared) = (self.cx.ty(v), data_type::name(declared));
                return Err(fault(format!("output {} is {ty}, declared as {declared} ({d})", quote(name))).into());
            }
            self.cx.graph.add_output(name, v);
        }
        Ok(())
    }
}

/// The node's name, or that of its first output, or operator and index.
fn display_name(proto: &proto::Node, index: usize) -> Cow<'_, str> {
    let output = || proto.output.iter().find(|o| !o.is_empty());
    match (proto.name.is_empty(), output()) {
        (false, _) => (&proto.name).into(),
        (true, Some(output)) => output.into(),
        (true, None) => format!("{}_{index}", proto.op_type).into(),
    }
}

/// The node's attributes, each once, with references to the function's attributes replaced.
fn attributes<'m>(proto: &'m proto::Node, scope: &Scope<'m>) -> Result<Vec<(&'m str, &'m proto::Attribute)>, Fault> {
    if proto.attribute.len() > MAX_ATTRIBUTES {
        return Err(Fault::limit(format!("it has {} attributes", proto.attribute.len())));
    }
    let mut all: Vec<(&str, &proto::Attribute)> = Vec::with_capacity(proto.attribute.len());
    for a in &proto.attribute {
        if all.iter().any(|(name, _)| *name == a.name) {
            return Err(Fault::node(format!("attribute {} is given twice", quote(&a.name))));
        }
        if a.ref_attr_name.is_empty() {
            all.push((&a.name, a));
            continue;
        }
        let Some(call) = &scope.call else {
            return Err(Fault::node(format!("attribute {} refers to a function's attribute", quote(&a.name))));
        };
        // A reference to an attribute that the caller leaves out leaves this one out too.
        if let Some(value) = call.attributes.get(a.ref_attr_name.as_str()) {
            all.push((&a.name, value));
        }
    }
    Ok(all)
}

fn bind<'m>(proto: &'m proto::Node, entries: Vec<Entry>, scope: &mut Scope<'m>) -> Result<(), Error> {
    for (name, entry) in proto.output.iter().zip(entries) {
        if !name.is_empty() {
            scope.define(name, entry)?;
        }
    }
    Ok(())
}

/// An order of the nodes in which every name is defined before it is read; the file's own order where that is one.
fn order(nodes: &[proto::Node], scope: &Scope) -> Result<Vec<usize>, Error> {
    let mut producers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            if scope.names.contains_key(name.as_str()) || producers.insert(name, i).is_some() {
                return Err(duplicate(name).into());
            }
        }
    }
    let mut readers: Vec<Vec<usize>> = vec![vec![]; nodes.len()];
    let mut missing = vec![0usize; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        for name in node.input.iter().filter(|n| !n.is_empty()) {
            if let Some(&p) = producers.get(name.as_str()) {
                readers[p].push(i);
                missing[i] += 1;
            } else if !scope.names.contains_key(name.as_str()) {
                let (shown, op) = (quote(&display_name(node, i)), clip(&node.op_type));
                let reason = format!("node {shown} #{i}, {op}, reads {}, which nothing defines", quote(name));
                return Err(Diagnostic::file(code::GRAPH, reason, "export the model again").into());
            }
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..nodes.len()).filter(|&i| missing[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for &r in &readers[i] {
            missing[r] -= 1;
            if missing[r] == 0 {
                ready.push(Reverse(r));
            }
        }
    }
    if let Some(i) = missing.iter().position(|&m| m > 0) {
        let reason = format!("node {} #{i} is on a cycle, or depends on one", quote(&display_name(&nodes[i], i)));
        return Err(Diagnostic::file(code::GRAPH, reason, "a graph must have no cycles").into());
    }
    Ok(order)
}

/// Drops what no output depends on, and notes what the integers of quantised inputs and outputs stand for.
fn finish(graph: Graph) -> Result<Graph, Error> {
    let mut graph = graph.rebuild(|g, _, v, inputs| g.copy_value(v, inputs)).map_err(Fault::from)?;
    // Elements that only move keep their meaning.
    let roots: Vec<ValueId> = graph.values().fold(Vec::with_capacity(graph.len()), |mut roots, (id, value)| {
        roots.push(match &value.def {
            Def::Node { op: Op::Transpose { .. } | Op::Reshape { .. }, inputs } => roots[inputs[0].index()],
            _ => id,
        });
        roots
    });
    let mut found = HashMap::new();
    for (id, value) in graph.values() {
        if let Def::Node { op: op @ (Op::Quantize { .. } | Op::Dequantize { .. }), inputs } = &value.def {
            let quantised = if matches!(op, Op::Quantize { .. }) { id } else { roots[inputs[0].index()] };
            if let Some(q) = params(&graph, inputs) {
                // Readers that disagree leave the port without parameters.
                found
                    .entry(quantised)
                    .and_modify(|old: &mut Option<_>| *old = old.filter(|o| *o == q))
                    .or_insert(Some(q));
            }
        }
    }
    for port in graph.inputs.iter_mut().chain(&mut graph.outputs) {
        port.quant = found.get(&roots[port.value.index()]).copied().flatten();
    }
    Ok(graph)
}

/// The parameters of a quantisation of a whole tensor.
fn params(graph: &Graph, inputs: &[ValueId]) -> Option<QuantParams> {
    let scale = graph.constant(*inputs.get(1)?)?.to_f32();
    let zero = graph.constant(*inputs.get(2)?)?.to_i64();
    match (scale.as_slice(), zero.as_slice()) {
        ([s], [z]) => Some(QuantParams { scale: F32(*s), zero_point: i32::try_from(*z).ok()? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::{DType, TensorType};

    #[test]
    fn ports_are_quantised_through_moves() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", TensorType::new(DType::I8, [2, 3]));
        let t = graph.add_node(Op::Transpose { perm: vec![1, 0] }, vec![x], origin("t")).unwrap();
        let scale = graph.add_const(Tensor::new([1], &[0.5f32]), origin("s"));
        let zero = graph.add_const(Tensor::new([1], &[-3i8]), origin("z"));
        let real = graph.add_node(Op::Dequantize { axis: 0 }, vec![t, scale, zero], origin("dq")).unwrap();
        let q = Op::Quantize { axis: 0, dtype: DType::I8 };
        let y = graph.add_node(q, vec![real, scale, zero], origin("q")).unwrap();
        let flat = graph.add_node(Op::Reshape { shape: vec![6] }, vec![y], origin("r")).unwrap();
        graph.add_output("y", flat);
        graph.add_output("real", real);
        let graph = finish(graph).unwrap();
        let params = Some(QuantParams { scale: F32(0.5), zero_point: -3 });
        assert_eq!((graph.inputs[0].quant, graph.outputs[0].quant, graph.outputs[1].quant), (params, params, None));
    }
}
