//! A compiled model, ready to run again and again in memory that it owns.

use crate::memory::AlignedBytes;
use crate::tensors::{Elements, TensorMut, TensorRef};
use mcc_ir::plan::{BufferId, BufferKind, Plan, PlanPort};
use mcc_ir::{DType, QuantParams, Tensor, TensorType};

/// Why a session does not run. Codes E06xx.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("the model has {expected} {side}s, {found} are given")]
    Count { side: &'static str, expected: usize, found: usize },
    #[error("{side} \"{port}\" is {expected}; elements of type {found} are given")]
    Type { side: &'static str, port: String, expected: TensorType, found: DType },
    #[error("{side} \"{port}\" is {expected}, {} elements; {found} are given", .expected.elements())]
    Length { side: &'static str, port: String, expected: TensorType, found: usize },
}

impl RunError {
    /// The stable code shown to users.
    pub fn code(&self) -> &'static str {
        match self {
            RunError::Count { .. } => "E0601",
            RunError::Type { .. } => "E0602",
            RunError::Length { .. } => "E0603",
        }
    }
}

/// Machine code of a whole model.
///
/// # Safety
/// An implementor's `run` must do no more than what the plan it was made from says: read and write buffers at the places
/// that [`Layout`] gives them, and read constants.
pub unsafe trait CompiledCode: Send {
    /// Number of kernels; one run of the model is a run of each, in order.
    fn kernels(&self) -> usize;

    /// Runs a kernel.
    ///
    /// # Safety
    /// `kernel` must be below their number. `arena` and `constants` must be the session's blocks, laid out as the code expects; `external[slot]` must point to
    /// the memory of the buffer with that slot, aligned for its elements, writable for outputs.
    unsafe fn run(&mut self, kernel: usize, arena: *mut u8, constants: *const u8, external: *const *mut u8);
}

/// Where compiled code finds a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bytes from the start of the arena.
    Arena(usize),
    /// The pointer with this index in the table of external buffers.
    External(usize),
}

/// The places of a plan's buffers, and how much memory they take.
#[derive(Clone, Debug)]
pub struct Layout {
    places: Vec<Place>,
    pub arena_bytes: usize,
    /// Number of external buffers.
    pub external: usize,
}

impl Layout {
    /// Buffers without an offset are external where a port of the model brings their memory; all others are in the arena.
    pub fn of(plan: &Plan) -> Layout {
        let mut layout = Layout { places: vec![], arena_bytes: plan.arena_bytes, external: 0 };
        for (i, buffer) in plan.buffers.iter().enumerate() {
            let id = BufferId(i as u32);
            let port = match buffer.kind {
                BufferKind::Input(n) => plan.inputs.get(n),
                BufferKind::Output(n) => plan.outputs.get(n),
                BufferKind::Value | BufferKind::Scratch => None,
            };
            let brought = port.is_some_and(|p| p.buffer == id && p.ty.bytes() >= buffer.bytes);
            layout.places.push(match buffer.offset {
                Some(offset) => Place::Arena(offset),
                None if brought => {
                    layout.external += 1;
                    Place::External(layout.external - 1)
                }
                None => {
                    let offset = layout.arena_bytes.next_multiple_of(AlignedBytes::ALIGNMENT);
                    layout.arena_bytes = offset + buffer.bytes;
                    Place::Arena(offset)
                }
            });
        }
        layout
    }

    pub fn place(&self, buffer: BufferId) -> Place {
        self.places[buffer.index()]
    }
}

/// An input or output of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: String,
    pub ty: TensorType,
    /// What the integers of a quantised tensor stand for, where known.
    pub quant: Option<QuantParams>,
    place: Place,
    /// Whether compiled code reads or writes the caller's memory itself.
    direct: bool,
}

/// A compiled model with its arena and constants.
///
/// A session is `Send`; running takes it mutably, so that several threads need a session each.
pub struct Session {
    code: Box<dyn CompiledCode>,
    arena: AlignedBytes,
    constants: AlignedBytes,
    external: Vec<*mut u8>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

// SAFETY: the code is `Send`, the blocks are owned, and `external` is null outside of `run`.
unsafe impl Send for Session {}

impl Session {
    /// A session that runs `plan` by `code`.
    ///
    /// # Safety
    /// `code` must have been compiled from `plan` under [`Layout::of`] it and `constants`, and the plan be verified.
    pub unsafe fn new(plan: &Plan, code: Box<dyn CompiledCode>, constants: AlignedBytes) -> Session {
        let layout = Layout::of(plan);
        let port = |p: &PlanPort, own: BufferKind| Port {
            name: p.name.clone(),
            ty: p.ty.clone(),
            quant: p.quant,
            place: layout.place(p.buffer),
            direct: plan.buffer(p.buffer).kind == own && matches!(layout.place(p.buffer), Place::External(_)),
        };
        let ports = |list: &[PlanPort], kind: fn(usize) -> BufferKind| {
            list.iter().enumerate().map(|(i, p)| port(p, kind(i))).collect()
        };
        Session {
            code,
            arena: AlignedBytes::zeroed(layout.arena_bytes),
            constants,
            external: vec![std::ptr::null_mut(); layout.external],
            inputs: ports(&plan.inputs, BufferKind::Input),
            outputs: ports(&plan.outputs, BufferKind::Output),
        }
    }

    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Bytes of working memory, buffers of inputs and outputs inside the arena included.
    pub fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Bytes of constants as laid out for the kernels.
    pub fn weights_bytes(&self) -> usize {
        self.constants.len()
    }

    /// Runs the model once: reads `inputs`, fills `outputs`. Allocates nothing.
    ///
    /// # Errors
    /// Where number, element type or length of the tensors is not that of the model's ports.
    pub fn run(&mut self, inputs: &[TensorRef<'_>], outputs: &mut [TensorMut<'_>]) -> Result<(), RunError> {
        self.run_observed(inputs, outputs, |_| {})
    }

    /// As [`Session::run`]; `observe` is called before the first kernel with 0, and after each with how many have run.
    ///
    /// # Errors
    /// As [`Session::run`].
    #[inline]
    pub fn run_observed(
        &mut self,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
        mut observe: impl FnMut(usize),
    ) -> Result<(), RunError> {
        count("input", self.inputs.len(), inputs.len())?;
        count("output", self.outputs.len(), outputs.len())?;
        for (port, given) in self.inputs.iter().zip(inputs) {
            port.check("input", given.dtype(), given.len())?;
        }
        for (port, given) in self.outputs.iter().zip(outputs.iter()) {
            port.check("output", given.dtype(), given.len())?;
        }
        for (port, given) in self.inputs.iter().zip(inputs) {
            match port.place {
                // Code only reads the buffers of inputs that stay with the caller.
                Place::External(slot) => self.external[slot] = given.as_ptr().cast_mut(),
                Place::Arena(at) => {
                    let room = &mut self.arena.as_mut_slice()[at..at + port.ty.bytes()];
                    // SAFETY: the tensor has as many bytes as the port (checked above), and is not in the arena.
                    unsafe { std::ptr::copy_nonoverlapping(given.as_ptr(), room.as_mut_ptr(), room.len()) };
                }
            }
        }
        for (port, given) in self.outputs.iter().zip(outputs.iter_mut()) {
            if let (Place::External(slot), true) = (port.place, port.direct) {
                self.external[slot] = given.as_mut_ptr();
            }
        }
        observe(0);
        let (arena, constants, external) = (self.arena.as_mut_ptr(), self.constants.as_ptr(), self.external.as_ptr());
        for kernel in 0..self.code.kernels() {
            // SAFETY: `new`'s contract binds code, layout and constants; every external buffer has a port, whose pointer
            // was set above, to elements of the port's type, so aligned for them and of the port's size.
            unsafe { self.code.run(kernel, arena, constants, external) };
            observe(kernel + 1);
        }
        for (port, given) in self.outputs.iter().zip(outputs.iter_mut()).filter(|(p, _)| !p.direct) {
            let from = match port.place {
                Place::Arena(at) => self.arena.as_mut_slice()[at..at + port.ty.bytes()].as_ptr(),
                // The buffer of an input or of another output.
                Place::External(slot) => self.external[slot].cast_const(),
            };
            // SAFETY: both sides have as many bytes as the port; a caller's output overlaps neither the arena nor another
            // tensor of this call. Code stores only 0 and 1 in `bool` buffers, and inputs of `bool` hold nothing else.
            unsafe { std::ptr::copy_nonoverlapping(from, given.as_mut_ptr(), port.ty.bytes()) };
        }
        self.external.fill(std::ptr::null_mut());
        Ok(())
    }

    /// As [`Session::run`], on tensors. Allocates its results.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_tensors(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        count("input", self.inputs.len(), inputs.len())?;
        let mut elements = Vec::with_capacity(inputs.len());
        for (port, tensor) in self.inputs.iter().zip(inputs) {
            port.check("input", tensor.dtype(), tensor.ty().elements())?;
            elements.push(Elements::of(tensor).ok_or_else(|| port.type_error("input", tensor.dtype()))?);
        }
        let mut results = Vec::with_capacity(self.outputs.len());
        for port in &self.outputs {
            let room = Elements::zeroed(port.ty.dtype, port.ty.elements());
            results.push(room.ok_or_else(|| port.type_error("output", port.ty.dtype))?);
        }
        let borrowed: Vec<TensorRef<'_>> = elements.iter().map(Elements::as_ref).collect();
        let mut outputs: Vec<TensorMut<'_>> = results.iter_mut().map(Elements::as_mut).collect();
        self.run(&borrowed, &mut outputs)?;
        Ok(results.into_iter().zip(&self.outputs).map(|(e, port)| e.into_tensor(&port.ty.shape)).collect())
    }
}

fn count(side: &'static str, expected: usize, found: usize) -> Result<(), RunError> {
    if expected == found { Ok(()) } else { Err(RunError::Count { side, expected, found }) }
}

impl Port {
    fn check(&self, side: &'static str, dtype: DType, len: usize) -> Result<(), RunError> {
        if dtype != self.ty.dtype {
            return Err(self.type_error(side, dtype));
        }
        if len != self.ty.elements() {
            return Err(RunError::Length { side, port: self.name.clone(), expected: self.ty.clone(), found: len });
        }
        Ok(())
    }

    fn type_error(&self, side: &'static str, found: DType) -> RunError {
        RunError::Type { side, port: self.name.clone(), expected: self.ty.clone(), found }
    }
}
