//! Kernels that the runtime implements: calls for the accumulators, epilogues from loop nests.

use super::nest::{Emitter, Pointer};
use super::{Bases, Compiler, Error, coalesce, name_of};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{AbiParam, InstBuilder, SigRef, Signature, Value};
use cranelift_frontend::FunctionBuilder;
use cranelift_jit::JITModule;
use cranelift_module::Module;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::nest::{Nest, Var};
use mcc_ir::ops::steps;
use mcc_ir::plan::{Arg, Kernel, Plan};
use mcc_ir::{DType, TensorType};
use mcc_runtime::kernels::{Prepared, prepare};

/// The implementation that the plan names, for this kernel.
///
/// # Errors
/// Where the runtime has none of that name, it does not fit the kernel, or weights and scratch memory are not as it wants.
pub fn prepared(plan: &Plan, kernel: &Kernel) -> Result<Prepared, Error> {
    let consts = plan.constants(kernel);
    let spec = KernelSpec { op: &kernel.op, arg_types: &kernel.arg_types, consts: &consts, out_type: &kernel.out_type };
    let prepared = prepare(kernel.implementation, &spec).ok_or_else(|| {
        let reason = format!("the host has no implementation \"{}\" of it", kernel.implementation);
        Error::Unsupported { kernel: name_of(kernel), reason }
    })?;
    let malformed = |reason: &str| Error::Plan(format!("{}: {reason}", name_of(kernel)));
    for (i, arg) in kernel.args.iter().enumerate() {
        if let Arg::Const(c) = arg
            && plan.constant(*c).packing != *prepared.packing(i)
        {
            return Err(malformed("a constant is packed otherwise than its implementation reads it"));
        }
    }
    let scratch = kernel.scratch.map_or(0, |b| plan.buffer(b).bytes);
    if scratch < prepared.scratch_bytes() {
        return Err(malformed("its scratch memory is too small"));
    }
    Ok(prepared)
}

/// One function call for each window of the output.
struct Calls<'a> {
    kernel: &'a Kernel,
    prepared: &'a Prepared,
    signature: SigRef,
    function: Value,
    params: Value,
    /// Those that the function takes.
    operands: [Value; 3],
    out: Value,
    scratch: Value,
}

/// The signature of all functions of the runtime's kernels.
pub fn signature(module: &JITModule) -> Signature {
    let mut signature = module.make_signature();
    signature.params = vec![AbiParam::new(I64); 7];
    signature
}

impl Compiler<'_> {
    /// A kernel by its implementation. `prepared` must outlive the code.
    pub fn call(
        &self,
        b: &mut FunctionBuilder<'_>,
        bases: Bases,
        signature: SigRef,
        kernel: &Kernel,
        prepared: &Prepared,
    ) {
        let own = kernel.op.own_inputs().unwrap_or(0);
        // A kernel that applies the epilogue leaves nothing to do.
        let post = kernel.op.post().filter(|_| !prepared.fused).map_or(&[][..], |p| p);
        let operands: Vec<&TensorType> = kernel.arg_types[own..].iter().collect();
        let (mut nest, fixed) = steps::epilogue(
            post,
            prepared.accumulator,
            &operands,
            &kernel.out_type,
            prepared.outer,
            prepared.in_output,
        );
        nest.body = match prepared.in_output && post.is_empty() {
            true => vec![],
            false => coalesce::coalesce(nest.body),
        };
        let pointer = |b: &mut FunctionBuilder<'_>, arg: Arg, dtype: DType| self.pointer(b, bases, arg, dtype);
        let inputs: Vec<Pointer> =
            kernel.args.iter().zip(&kernel.arg_types).map(|(arg, ty)| pointer(b, *arg, ty.dtype)).collect();
        let out = pointer(b, Arg::Buffer(kernel.out), kernel.out_type.dtype);
        let scratch = match kernel.scratch {
            Some(buffer) => pointer(b, Arg::Buffer(buffer), DType::U8).base,
            None => b.ins().iconst(I64, 0),
        };
        let none = b.ins().iconst(I64, 0);
        let calls = Calls {
            kernel,
            prepared,
            signature,
            function: b.ins().iconst(I64, prepared.function as usize as i64),
            params: b.ins().iconst(I64, prepared.params().expose_provenance() as i64),
            operands: prepared.arguments.map(|a| a.and_then(|i| inputs.get(i)).map_or(none, |input| input.base)),
            out: out.base,
            scratch,
        };
        let accumulators = match prepared.in_output {
            true => out,
            false => Pointer { base: scratch, constant: false, aligned: true },
        };
        let pointers: Vec<Pointer> =
            [accumulators].into_iter().chain(inputs[own..].iter().copied()).chain([out]).collect();
        let start = b.ins().iconst(I64, 0);
        calls.windows(&mut Emitter::new(b, &nest, &pointers), &nest, &fixed, start);
    }
}

impl Calls<'_> {
    /// Loops over the output's leading dimensions; `step` counts the windows of the loops around.
    fn windows(&self, e: &mut Emitter<'_, '_>, nest: &Nest, fixed: &[Var], step: Value) {
        match fixed.split_first() {
            None => {
                self.one(e.b, step);
                e.block(&nest.body);
            }
            Some((var, rest)) => {
                let extent = self.kernel.out_type.shape[self.prepared.outer - fixed.len()] as i64;
                e.count(*var, 0, extent, 1, |e| {
                    let at = e.var(*var);
                    let before = e.b.ins().imul_imm_s(step, extent);
                    let step = e.b.ins().iadd(before, at);
                    self.windows(e, nest, rest, step);
                });
            }
        }
    }

    /// The accumulators of one window.
    fn one(&self, b: &mut FunctionBuilder<'_>, step: Value) {
        let accumulators = if self.prepared.in_output {
            let at = b.ins().imul_imm_s(step, self.prepared.window_bytes as i64);
            b.ins().iadd(self.out, at)
        } else {
            self.scratch
        };
        let private = b.ins().iadd_imm_s(self.scratch, self.prepared.private_offset() as i64);
        let [a, w, c] = self.operands;
        b.ins().call_indirect(self.signature, self.function, &[self.params, step, a, w, c, accumulators, private]);
    }
}
