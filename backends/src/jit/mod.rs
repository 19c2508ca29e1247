//! Plans to machine code in memory, by Cranelift.
//!
//! Each kernel is a function over an arena, a block of constants and a table of the caller's buffers, compiled from its loop
//! nest or as calls of the implementation that the plan names.
//!
//! Invariants: code is free of traps, libcalls and imports; dropping the session frees the code's memory.

mod call;
mod coalesce;
mod nest;
mod vector;

use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Value};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Module, ModuleError, default_libcall_names};
use mcc_ir::catalogue::NEST;
use mcc_ir::packing::Packing;
use mcc_ir::plan::{Arg, BufferId, ConstId, Kernel, Plan};
use mcc_ir::{DType, TensorType};
use mcc_runtime::kernels::{Prepared, Threads};
use mcc_runtime::{AlignedBytes, CompiledCode, CpuError, Layout, Place, Session, cpu};
use nest::{Emitter, Pointer};

/// Why a plan does not become a session. Codes E05xx.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this machine cannot run compiled code: {0}")]
    Host(String),
    #[error("{kernel}: {reason}")]
    Unsupported { kernel: String, reason: String },
    #[error("the plan is malformed: {0}")]
    Plan(String),
    #[error("code generation failed: {0}")]
    Codegen(String),
    #[error(transparent)]
    Cpu(#[from] CpuError),
}

impl Error {
    /// The stable code shown to users.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Host(_) => "E0501",
            Error::Unsupported { .. } => "E0502",
            Error::Plan(_) => "E0503",
            Error::Codegen(_) => "E0504",
            Error::Cpu(_) => "E0505",
        }
    }
}

impl From<ModuleError> for Error {
    fn from(e: ModuleError) -> Error {
        Error::Codegen(format!("{e:?}"))
    }
}

/// Verifies a plan and compiles it for this machine.
///
/// # Errors
/// Where the plan is not valid, the machine is no little-endian 64-bit one that Cranelift knows, a kernel uses an element type or implementation
/// that has no code here, or an argument does not lie inside its buffer.
pub fn compile(plan: &Plan) -> Result<Session, Error> {
    compile_for_threads(plan, Threads::new(1))
}

/// As [`compile`]; threads share the large kernels of a run, with the same results.
///
/// # Errors
/// As [`compile`], and where the system starts no more threads.
pub fn compile_for_threads(plan: &Plan, threads: Threads) -> Result<Session, Error> {
    mcc_ir::plan::verify::verify(plan).map_err(|e| Error::Plan(e.to_string()))?;
    // SAFETY: just verified.
    unsafe { compile_unverified(plan, threads) }
}

/// As [`compile_for_threads`], for plans that the verifier cannot judge.
///
/// # Safety
/// No kernel may read or write outside its arguments: [`mcc_ir::plan::verify::verify`] would find that so.
///
/// # Errors
/// As [`compile_for_threads`].
pub unsafe fn compile_unverified(plan: &Plan, threads: Threads) -> Result<Session, Error> {
    cpu::level()?;
    let layout = Layout::of(plan);
    check(plan, &layout)?;
    let (constants, offsets) = lay_out_constants(plan);
    let mut kernels = Vec::new();
    let mut calls = vec![None; plan.kernels.len()];
    for (kernel, call) in plan.kernels.iter().zip(&mut calls).filter(|(k, _)| k.implementation != NEST) {
        *call = Some(kernels.len());
        kernels.push(call::prepared(plan, kernel)?);
    }
    mcc_runtime::kernels::share(&mut kernels, threads).map_err(|e| Error::Host(format!("it starts no thread: {e}")))?;
    let mut code = Code { module: Some(module()?), entries: vec![], kernels };
    let module = code.module.as_mut().expect("just made");
    let compiler = Compiler { plan, layout: &layout, offsets: &offsets };
    let mut functions = FunctionBuilderContext::new();
    let mut defined = Vec::with_capacity(plan.kernels.len());
    for (kernel, call) in plan.kernels.iter().zip(calls) {
        let prepared = call.map(|i| &code.kernels[i]);
        defined.push(compiler.function(module, &mut functions, kernel, prepared)?);
    }
    module.finalize_definitions()?;
    for function in defined {
        let address = module.get_finalized_function(function);
        // SAFETY: `address` is a finalised function that `Compiler::function` defined, with the host's calling convention
        // and three pointer parameters.
        code.entries.push(unsafe { std::mem::transmute::<*const u8, Entry>(address) });
    }
    // SAFETY: the code was compiled from this plan, under its layout and with these constants.
    Ok(unsafe { Session::new(plan, Box::new(code), constants) })
}

/// Arena, constants, table of external buffers.
type Entry = unsafe extern "C" fn(*mut u8, *const u8, *const *mut u8);

/// Machine code and the module that owns its memory.
struct Code {
    module: Option<JITModule>,
    /// One a kernel.
    entries: Vec<Entry>,
    /// The runtime's kernels that are called; addresses of what they own are in the code.
    kernels: Vec<Prepared>,
}

// SAFETY: the code is compiled from a verified plan, by its loop nests and the runtime's kernels.
unsafe impl CompiledCode for Code {
    fn kernels(&self) -> usize {
        self.entries.len()
    }

    unsafe fn run(&mut self, kernel: usize, arena: *mut u8, constants: *const u8, external: *const *mut u8) {
        // SAFETY: the caller keeps the contract of `CompiledCode::run`; the code lives as long as `self`.
        unsafe { self.entries[kernel](arena, constants, external) }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: no function of the module runs, as `run` borrows `self`, and no pointer to one is kept elsewhere.
            unsafe { module.free_memory() };
        }
    }
}

fn module() -> Result<JITModule, Error> {
    let host = |e: &dyn std::fmt::Display| Error::Host(e.to_string());
    if cfg!(not(all(target_endian = "little", target_pointer_width = "64"))) {
        return Err(Error::Host("it is not a little-endian machine with 64-bit pointers".into()));
    }
    // Rounding would become a libcall.
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("sse4.1") {
        return Err(Error::Host("the processor lacks SSE4.1".into()));
    }
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "speed"),
        ("is_pic", "false"),
        ("use_colocated_libcalls", "false"),
        ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
    ] {
        flags.set(name, value).map_err(|e| host(&e))?;
    }
    let isa = cranelift_native::builder().map_err(|e| host(&e))?;
    let isa = isa.finish(settings::Flags::new(flags)).map_err(|e| host(&e))?;
    Ok(JITModule::new(JITBuilder::with_isa(isa, default_libcall_names())))
}

/// The kernel under the names that the user knows.
fn name_of(kernel: &Kernel) -> String {
    match kernel.origin.first() {
        Some(name) => format!("{} \"{name}\"", kernel.op.name()),
        None => kernel.op.name().to_string(),
    }
}

/// Checks what code relies on: element types, and that every argument lies inside its buffer.
fn check(plan: &Plan, layout: &Layout) -> Result<(), Error> {
    for port in plan.inputs.iter().chain(&plan.outputs) {
        if plan.buffers.get(port.buffer.index()).is_none_or(|b| b.bytes < port.ty.bytes()) {
            return Err(Error::Plan(format!("port \"{}\" does not fit buffer {}", port.name, port.buffer)));
        }
    }
    for (i, buffer) in plan.buffers.iter().enumerate() {
        if let Place::Arena(at) = layout.place(BufferId(i as u32))
            && at.checked_add(buffer.bytes).is_none_or(|end| end > layout.arena_bytes)
        {
            return Err(Error::Plan(format!("b{i} leaves the arena of {} bytes", layout.arena_bytes)));
        }
    }
    for kernel in &plan.kernels {
        let bytes = |arg: &Arg| match arg {
            Arg::Buffer(b) => plan.buffers.get(b.index()).map(|b| b.bytes),
            Arg::Const(c) => plan.consts.get(c.index()).map(|c| c.packing.packed_type(c.tensor.ty()).bytes()),
        };
        let args: Vec<Arg> = arguments(kernel).collect();
        if args.len() != kernel.nest.args.len() || kernel.args.len() != kernel.nest.inputs {
            return Err(Error::Plan(format!("{} and its nest disagree on the arguments", name_of(kernel))));
        }
        let declared = kernel.arg_types.iter().chain([&kernel.out_type]);
        let inputs = &kernel.nest.args[..kernel.nest.inputs];
        let sizes = |t: &TensorType| (t.dtype, t.elements());
        if !declared.map(sizes).eq(inputs.iter().chain(kernel.nest.args.last()).map(sizes)) {
            return Err(Error::Plan(format!("{} and its nest disagree on the types", name_of(kernel))));
        }
        for (arg, ty) in args.iter().zip(&kernel.nest.args) {
            match ty.dtype {
                DType::F32 | DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::Bool => {}
                other => {
                    let reason = format!("{other} does not run on the host");
                    return Err(Error::Unsupported { kernel: name_of(kernel), reason });
                }
            }
            if bytes(arg).is_none_or(|have| have < ty.bytes()) {
                return Err(Error::Plan(format!("{} reads {ty} beyond its buffer", name_of(kernel))));
            }
        }
    }
    Ok(())
}

/// All arguments in the nest's order: inputs, tables, output.
fn arguments(kernel: &Kernel) -> impl Iterator<Item = Arg> {
    let tables = kernel.tables.iter().map(|c| Arg::Const(*c));
    kernel.args.iter().copied().chain(tables).chain([Arg::Buffer(kernel.out)])
}

/// All constants in one block, packed, each at an aligned offset.
fn lay_out_constants(plan: &Plan) -> (AlignedBytes, Vec<usize>) {
    let mut offsets = Vec::with_capacity(plan.consts.len());
    let mut end = 0usize;
    for constant in &plan.consts {
        offsets.push(end.next_multiple_of(AlignedBytes::ALIGNMENT));
        end = offsets[offsets.len() - 1] + constant.packing.packed_type(constant.tensor.ty()).bytes();
    }
    let mut block = AlignedBytes::zeroed(end);
    for (constant, &at) in plan.consts.iter().zip(&offsets) {
        let packed = constant.packed();
        block.as_mut_slice()[at..at + packed.bytes().len()].copy_from_slice(packed.bytes());
    }
    (block, offsets)
}

/// The parameters of every function.
#[derive(Clone, Copy)]
struct Bases {
    arena: Value,
    constants: Value,
    external: Value,
}

struct Compiler<'a> {
    plan: &'a Plan,
    layout: &'a Layout,
    /// Bytes from the start of the constants to each.
    offsets: &'a [usize],
}

impl Compiler<'_> {
    /// Defines a kernel's function. `prepared` is the runtime's implementation, where it has one; it must outlive the code.
    fn function(
        &self,
        module: &mut JITModule,
        functions: &mut FunctionBuilderContext,
        kernel: &Kernel,
        prepared: Option<&Prepared>,
    ) -> Result<FuncId, Error> {
        let mut context = module.make_context();
        context.func.signature.call_conv = module.isa().default_call_conv();
        context.func.signature.params = vec![AbiParam::new(I64); 3];
        let id = module.declare_anonymous_function(&context.func.signature)?;
        let mut b = FunctionBuilder::new(&mut context.func, functions);
        let block = b.create_block();
        b.append_block_params_for_function_params(block);
        b.switch_to_block(block);
        b.seal_block(block);
        let params = b.block_params(block);
        let bases = Bases { arena: params[0], constants: params[1], external: params[2] };
        match prepared {
            None => self.nest(&mut b, bases, kernel)?,
            Some(prepared) => {
                let signature = b.import_signature(call::signature(module));
                self.call(&mut b, bases, signature, kernel, prepared);
            }
        }
        b.ins().return_(&[]);
        b.finalize(module.target_config());
        module.define_function(id, &mut context)?;
        Ok(id)
    }

    /// A kernel by its loop nest.
    fn nest(&self, b: &mut FunctionBuilder<'_>, bases: Bases, kernel: &Kernel) -> Result<(), Error> {
        if let Some(c) = kernel.args.iter().find_map(|a| packed(self.plan, a)) {
            return Err(Error::Plan(format!("{} reads {c}, which is packed, by its nest", name_of(kernel))));
        }
        let pointers: Vec<Pointer> =
            arguments(kernel).zip(&kernel.nest.args).map(|(arg, ty)| self.pointer(b, bases, arg, ty.dtype)).collect();
        let body = coalesce::coalesce(kernel.nest.body.clone());
        Emitter::new(b, &kernel.nest, &pointers).block(&body);
        Ok(())
    }

    /// Where an argument is at run time.
    fn pointer(&self, b: &mut FunctionBuilder<'_>, bases: Bases, arg: Arg, dtype: DType) -> Pointer {
        let size = dtype.bits() / 8;
        match arg {
            Arg::Const(c) => {
                let base = b.ins().iadd_imm_s(bases.constants, self.offsets[c.index()] as i64);
                Pointer { base, constant: true, aligned: true }
            }
            Arg::Buffer(buffer) => match self.layout.place(buffer) {
                Place::Arena(at) => {
                    let base = b.ins().iadd_imm_s(bases.arena, at as i64);
                    Pointer { base, constant: false, aligned: at.is_multiple_of(size) }
                }
                Place::External(slot) => {
                    let flags = MemFlagsData::trusted().with_readonly().with_can_move();
                    let base = b.ins().load(I64, flags, bases.external, (slot * 8) as i32);
                    Pointer { base, constant: false, aligned: true }
                }
            },
        }
    }
}

/// The constant that an argument is, where it is packed.
fn packed(plan: &Plan, arg: &Arg) -> Option<ConstId> {
    match arg {
        Arg::Const(c) if plan.constant(*c).packing != Packing::None => Some(*c),
        _ => None,
    }
}
