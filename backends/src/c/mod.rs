//! The C backend: a Plan becomes one C11 source file and one header.
//!
//! The source needs string.h and stdint.h only, has no state but constants, and every identifier starts with the model's
//! name. Each kernel is one static function, printed from its loop nest or from a template of [`CATALOGUE`]; the plan has
//! made all choices. The text depends on the plan, the target and the name only.
//!
//! The arena's bytes are read and written as elements of various types at various times. Kernels write a buffer before
//! others read it under the same type, which compilers honour as they do for allocated memory.

mod consts;
mod dsp;
pub mod exec;
mod fours;
mod header;
mod helpers;
mod kernels;
mod lines;
mod mve;
mod mve_depthwise;
mod names;
mod nest;
mod pairs;
mod quads;
mod scalars;
mod sharing;
mod winograd;
mod writer;

pub use kernels::CATALOGUE;

use helpers::Helpers;
use kernels::Template;
use mcc_ir::catalogue::{KernelSpec, NEST};
use mcc_ir::plan::{Arg, BufferId, ConstId, Kernel, Overlap, Plan, PlanPort};
use mcc_ir::target::Feature;
use mcc_ir::{DType, Target};
use sharing::{Sharing, Slot};
use std::collections::HashMap;
use std::fmt::Write as _;
use writer::Writer;

/// Options of [`emit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct COptions {
    /// Prefix of every identifier and of the file names: a C identifier of at most 40 characters.
    pub name: String,
}

/// Why a plan cannot be emitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    #[error("`{name}` cannot name a C model: {reason}; choose another with --name")]
    Name { name: String, reason: &'static str },
    #[error(
        "kernel {kernel} asks for the implementation `{id}`, which the C backend does not offer for it on {target}"
    )]
    Implementation { kernel: usize, id: String, target: String },
}

impl EmitError {
    /// The stable code shown to users.
    pub fn code(&self) -> &'static str {
        match self {
            EmitError::Name { .. } => "E0411",
            EmitError::Implementation { .. } => "E0412",
        }
    }
}

/// An input or output of emitted C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CPort {
    /// The C type of an element.
    pub c_type: &'static str,
    pub bytes: usize,
    /// Bytes from the start of the first arena, all arenas in a row; `None` where the caller keeps it outside.
    pub offset: Option<usize>,
}

/// Emitted C, and what a driver needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSource {
    pub name: String,
    /// The text of `NAME.c`.
    pub source: String,
    /// The text of `NAME.h`.
    pub header: String,
    /// Bytes of all arenas.
    pub arena_bytes: usize,
    /// Where each arena begins, all in a row, in the order of the run function's arguments.
    pub arenas: Vec<usize>,
    pub alignment: usize,
    pub inputs: Vec<CPort>,
    pub outputs: Vec<CPort>,
}

/// Prints a verified plan as C.
///
/// # Errors
/// Where the name is no C identifier, or the plan asks for an implementation that [`CATALOGUE`] does not offer.
pub fn emit(plan: &Plan, target: &Target, options: &COptions) -> Result<CSource, EmitError> {
    if let Some(reason) = names::fault(&options.name) {
        return Err(EmitError::Name { name: options.name.clone(), reason });
    }
    let mut emitter = Emitter {
        plan,
        target,
        name: &options.name,
        helpers: Helpers::new(&options.name),
        arrays: String::new(),
        array_of: HashMap::new(),
        pointer_of: HashMap::new(),
        sharing: Sharing::of(plan),
        function_of: HashMap::new(),
        waiting: HashMap::new(),
    };
    let mut functions = String::new();
    let mut run = Writer::default();
    emitter.run_head(&mut run);
    for (i, kernel) in plan.kernels.iter().enumerate() {
        let call = emitter.kernel(i, kernel, &mut functions)?;
        run.line(call);
    }
    run.line("return 0;");
    run.close();
    let port = |p: &PlanPort| CPort {
        c_type: consts::c_type(p.ty.dtype),
        bytes: p.ty.bytes(),
        offset: plan.buffer(p.buffer).offset,
    };
    let name = &options.name;
    let mut source = String::new();
    let _ = write!(
        source,
        "/* {} for {}. Made by mcc {}; do not edit. */\n\n#include \"{name}.h\"\n\n#include <string.h>\n",
        names::comment(&plan.name),
        names::comment(&target.name),
        env!("CARGO_PKG_VERSION")
    );
    if !emitter.arrays.is_empty() {
        source.push_str(&consts::section_macro(name));
    }
    source.push_str(&emitter.helpers.text());
    source.push('\n');
    source.push_str(&emitter.arrays);
    source.push_str(&functions);
    source.push_str(&run.finish());
    Ok(CSource {
        name: name.clone(),
        header: header::print(plan, target, name),
        source,
        arena_bytes: plan.arena_bytes,
        arenas: plan.arenas.iter().map(|a| a.start).collect(),
        alignment: plan.alignment,
        inputs: plan.inputs.iter().map(port).collect(),
        outputs: plan.outputs.iter().map(port).collect(),
    })
}

struct Emitter<'a> {
    plan: &'a Plan,
    target: &'a Target,
    name: &'a str,
    helpers: Helpers,
    arrays: String,
    /// The C name of an array by its element type and bytes, so that equal data is stored once.
    array_of: HashMap<(DType, Vec<u8>), String>,
    /// The pointer to a constant's array.
    pointer_of: HashMap<ConstId, String>,
    sharing: Sharing,
    /// Names of functions by their text without the name: kernels on equal shapes and constants share one.
    function_of: HashMap<String, String>,
    /// Definitions of arrays that no kernel has used yet, by pointer.
    waiting: HashMap<String, String>,
}

/// A pointer argument of a kernel's function.
struct Param {
    declaration: String,
    value: String,
}

impl Emitter<'_> {
    /// Signature and checks of the run function.
    fn run_head(&self, w: &mut Writer) {
        let up = self.name.to_uppercase();
        w.open(header::prototype(self.plan, self.name));
        for i in 0..self.plan.arenas.len() {
            let (arena, base) = (header::arena(self.plan, i), header::base(self.plan, i));
            if self.plan.bytes_of_arena(i) > 0 {
                w.open(format!("if ({arena} == NULL || (uintptr_t){arena} % {}u != 0u)", self.plan.alignment));
                w.line(format!("return {up}_BAD_ARENA;"));
                w.close();
                w.line(format!("uint8_t *const {base} = (uint8_t *){arena};"));
            } else {
                w.line(format!("(void){arena};"));
            }
        }
        for (kind, ports) in [("input", &self.plan.inputs), ("output", &self.plan.outputs)] {
            for (i, port) in ports.iter().enumerate() {
                let wrong = match self.plan.buffer(port.buffer).offset {
                    Some(at) => format!("(const void *){kind}_{i} != (const void *)({})", self.address(at)),
                    None => format!("{kind}_{i} == NULL"),
                };
                w.open(format!("if ({wrong})"));
                w.line(format!("return {up}_BAD_{};", kind.to_uppercase()));
                w.close();
            }
        }
    }

    /// Defines the array of a pointer, where that has not been done.
    fn define(&mut self, pointer: &str) {
        if let Some(definition) = self.waiting.remove(pointer) {
            self.arrays.push_str(&definition);
            self.arrays.push('\n');
        }
    }

    /// Prints one kernel's function and returns the call of it.
    fn kernel(&mut self, i: usize, k: &Kernel, functions: &mut String) -> Result<String, EmitError> {
        let op = k.op.name();
        let function = format!("{}_k{i}_{op}", self.name);
        self.check(i, k)?;
        let mut expressions = Vec::new();
        let mut params: Vec<Option<Param>> = Vec::new();
        for (j, arg) in k.args.iter().enumerate() {
            match arg {
                Arg::Const(c) => {
                    expressions.push(self.constant(*c));
                    params.push(None);
                }
                Arg::Buffer(b) => {
                    let name = arg_name(k, j);
                    let ty = consts::c_type(k.arg_types[j].dtype);
                    let declaration = format!("const {ty} *{}{name}", self.sharing.restrict(i, Slot::Arg(j)));
                    params.push(Some(Param { declaration, value: self.buffer(*b, "const ", ty) }));
                    expressions.push(name);
                }
            }
        }
        let mut args = expressions.clone();
        args.push("out".into());
        for table in &k.tables {
            expressions.push(self.constant(*table));
            params.push(None);
        }
        expressions.push("out".into());
        let plan = self.plan;
        let consts = plan.constants(k);
        let mut w = Writer::default();
        let (used, inner) = if k.implementation == NEST {
            let mut printer = nest::Printer::new(&k.nest, &mut self.helpers, &expressions);
            printer.block(&mut w, &k.nest.body);
            (printer.used, String::new())
        } else {
            let aligned = [k.args.first().is_some_and(|a| self.aligned(a)), self.aligned(&Arg::Buffer(k.out))];
            let mut t = Template {
                kernel: k,
                helpers: &mut self.helpers,
                name: &function,
                args: &args,
                aligned,
                consts: &consts,
                fpu: self.target.has(Feature::Fpu),
                functions: String::new(),
                used: Default::default(),
                factors: None,
            };
            let body = t.body(&mut w);
            let (used, inner) = (t.used, t.functions);
            body.ok_or_else(|| self.refuse(i, k))?;
            (used, inner)
        };
        for (j, pointer) in expressions.iter().enumerate() {
            if used.contains(&j) {
                self.define(pointer);
            }
        }
        let body = w.finish();
        let mut pass: Vec<Param> =
            params.into_iter().enumerate().filter(|(j, _)| used.contains(j)).filter_map(|(_, p)| p).collect();
        if let Some(scratch) = k.scratch.filter(|_| body.contains("scratch")) {
            let declaration = format!("void *{}scratch", self.sharing.restrict(i, Slot::Scratch));
            pass.push(Param { declaration, value: self.buffer(scratch, "", "void") });
        }
        let ty = consts::c_type(k.out_type.dtype);
        pass.push(Param {
            declaration: format!("{ty} *{}out", self.sharing.restrict(i, Slot::Out)),
            value: self.buffer(k.out, "", ty),
        });
        let declarations: Vec<&str> = pass.iter().map(|p| p.declaration.as_str()).collect();
        let values: Vec<&str> = pass.iter().map(|p| p.value.as_str()).collect();
        let key = format!("{inner}\n({})\n{body}", declarations.join(", ")).replace(&function, "");
        if let Some(same) = self.function_of.get(&key) {
            return Ok(format!("{same}({});", values.join(", ")));
        }
        self.function_of.insert(key, function.clone());
        functions.push_str(&inner);
        self.comment(k, functions);
        let _ = writeln!(functions, "static void {function}({}) {{", declarations.join(", "));
        for line in body.lines() {
            let indent = if line.is_empty() || line.starts_with('#') { "" } else { "    " };
            let _ = writeln!(functions, "{indent}{line}");
        }
        functions.push_str("}\n\n");
        Ok(format!("{function}({});", values.join(", ")))
    }

    /// The comment before a kernel: where it comes from, what it computes on what shapes, and how.
    fn comment(&self, k: &Kernel, out: &mut String) {
        let types: Vec<String> = k.arg_types.iter().map(|t| t.to_string()).collect();
        let from: Vec<String> = k.origin.iter().map(|n| names::comment(n)).collect();
        let _ = writeln!(out, "/* {}: {} -> {}", k.op.name(), types.join(", "), k.out_type);
        let macs = if k.macs > 0 { format!(", {} multiply-accumulates", k.macs) } else { String::new() };
        let _ = writeln!(out, " * by {}{macs}", k.implementation);
        let mut line = String::from(" * from");
        for (i, name) in from.iter().enumerate() {
            if line.len() + name.len() > 116 && i > 0 {
                let _ = writeln!(out, "{line}");
                line = String::from(" *     ");
            }
            line.push(' ');
            line.push_str(name);
            if i + 1 < from.len() {
                line.push(',');
            }
        }
        // A name that ends in a star must not meet the slash.
        let _ = writeln!(out, "{line}\n */");
    }

    /// Whether the catalogue makes the offer that the plan was built on.
    fn check(&self, i: usize, k: &Kernel) -> Result<(), EmitError> {
        if k.implementation == NEST {
            return Ok(());
        }
        let plan = self.plan;
        let consts = plan.constants(k);
        let spec = KernelSpec { op: &k.op, arg_types: &k.arg_types, consts: &consts, out_type: &k.out_type };
        let entry = CATALOGUE.iter().find(|e| e.id == k.implementation);
        let offer = entry.and_then(|e| (e.offer)(&spec, self.target)).ok_or_else(|| self.refuse(i, k))?;
        let packed = k.args.iter().zip(&offer.packings).all(|(arg, packing)| match arg {
            Arg::Const(c) => &self.plan.constant(*c).packing == packing,
            Arg::Buffer(_) => true,
        });
        let room = k.scratch.map_or(0, |b| self.plan.buffer(b).bytes) >= offer.scratch_bytes;
        let place = match self.plan.buffer(k.out).over {
            Some(over) if k.args.first() == Some(&Arg::Buffer(over.donor)) => match (over.how, offer.overlap) {
                (Overlap::Ahead(lead), Some(Overlap::Ahead(least))) => lead >= least,
                (Overlap::Behind(lead), Some(Overlap::Behind(least))) => lead >= least,
                (how, may) => may == Some(how),
            },
            _ => true,
        };
        if packed && room && place { Ok(()) } else { Err(self.refuse(i, k)) }
    }

    fn refuse(&self, i: usize, k: &Kernel) -> EmitError {
        EmitError::Implementation { kernel: i, id: k.implementation.into(), target: self.target.name.clone() }
    }

    /// Whether an argument lies at a multiple of 4: all but what the caller keeps.
    fn aligned(&self, arg: &Arg) -> bool {
        match arg {
            Arg::Const(_) => true,
            Arg::Buffer(b) => {
                self.plan.buffer(*b).offset.is_some_and(|at| at.is_multiple_of(4)) && self.plan.alignment >= 4
            }
        }
    }

    /// The address of an offset, as a sum.
    fn address(&self, offset: usize) -> String {
        let (arena, at) = header::place(self.plan, offset);
        format!("{} + {at}", header::base(self.plan, arena))
    }

    /// A buffer's address as a pointer of a type.
    fn buffer(&self, b: BufferId, qualifier: &str, ty: &str) -> String {
        if let Some(at) = self.plan.buffer(b).offset {
            let cast = if ty == "void" { String::new() } else { format!("({qualifier}{ty} *)") };
            let via = if ty == "void" || ty == "uint8_t" { "" } else { "(void *)" };
            return format!("{cast}{via}({})", self.address(at));
        }
        let position = |ports: &[PlanPort]| ports.iter().position(|p| p.buffer == b);
        match (position(&self.plan.inputs), position(&self.plan.outputs)) {
            (Some(i), _) => format!("input_{i}"),
            (None, Some(i)) => format!("output_{i}"),
            (None, None) => unreachable!("the plan's verifier gives every other buffer an offset"),
        }
    }

    /// The pointer to a constant's data, which [`Emitter::define`] defines.
    fn constant(&mut self, id: ConstId) -> String {
        if let Some(pointer) = self.pointer_of.get(&id) {
            return pointer.clone();
        }
        let constant = self.plan.constant(id);
        let packed = constant.packed();
        let key = (packed.dtype(), packed.bytes().to_vec());
        let pointer = match self.array_of.get(&key) {
            Some(pointer) => pointer.clone(),
            None => {
                let name = format!("{}_c{}", self.name, self.array_of.len());
                let origin: Vec<String> = constant.origin.iter().map(|n| names::comment(n)).collect();
                let section = consts::section(self.name);
                let array = consts::array(&section, &name, &packed, self.plan.alignment.max(4), &origin.join(", "));
                self.waiting.insert(array.pointer.clone(), array.definition);
                self.array_of.insert(key, array.pointer.clone());
                array.pointer
            }
        };
        self.pointer_of.insert(id, pointer.clone());
        pointer
    }
}

/// The name of an argument in a kernel's function.
fn arg_name(k: &Kernel, j: usize) -> String {
    match k.op.own_inputs() {
        Some(own) if j >= own => format!("operand{}", j - own),
        _ => format!("in{j}"),
    }
}
