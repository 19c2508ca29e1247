//! The header of an emitted model.

use super::consts::{c_type, float};
use super::names;
use super::writer::Writer;
use mcc_ir::plan::{Plan, PlanPort};
use mcc_ir::{DType, Target};

/// The memory's name as a part of an identifier.
fn of_memory(plan: &Plan, arena: usize) -> String {
    let memory = plan.arenas[arena].memory.as_deref();
    memory.map_or_else(|| arena.to_string(), |name| name.replace('-', "_"))
}

/// The run function's argument for an arena: `arena` where there is one, else with the name of its memory.
pub fn arena(plan: &Plan, arena: usize) -> String {
    if plan.arenas.len() == 1 { "arena".into() } else { format!("arena_{}", of_memory(plan, arena)) }
}

/// The variable that points to an arena's first byte.
pub fn base(plan: &Plan, arena: usize) -> String {
    if plan.arenas.len() == 1 { "base".into() } else { format!("base_{}", of_memory(plan, arena)) }
}

/// The arena of an offset, and bytes from its start.
pub fn place(plan: &Plan, offset: usize) -> (usize, usize) {
    let arena = plan.arena_at(offset);
    (arena, offset - plan.arenas[arena].start)
}

/// `int NAME_run(void *arena, ...)`.
pub fn prototype(plan: &Plan, name: &str) -> String {
    let mut params: Vec<String> = (0..plan.arenas.len()).map(|i| format!("void *{}", arena(plan, i))).collect();
    params.extend(plan.inputs.iter().enumerate().map(|(i, p)| format!("const {} *input_{i}", c_type(p.ty.dtype))));
    params.extend(plan.outputs.iter().enumerate().map(|(i, p)| format!("{} *output_{i}", c_type(p.ty.dtype))));
    format!("int {name}_run({})", params.join(", "))
}

pub fn print(plan: &Plan, target: &Target, name: &str) -> String {
    let up = name.to_uppercase();
    let w = &mut Writer::default();
    w.line(format!("/* {} for {}. Made by mcc. */", names::comment(&plan.name), names::comment(&target.name)));
    w.line(format!("#ifndef {up}_H"));
    w.line(format!("#define {up}_H"));
    w.line("");
    w.line("#include <stdint.h>");
    w.line("");
    arenas(w, plan, target, &up);
    w.line("");
    w.line(format!("#define {up}_NUM_INPUTS {}", plan.inputs.len()));
    w.line(format!("#define {up}_NUM_OUTPUTS {}", plan.outputs.len()));
    for (kind, ports) in [("INPUT", &plan.inputs), ("OUTPUT", &plan.outputs)] {
        for (i, p) in ports.iter().enumerate() {
            w.line("");
            port(w, plan, &up, &format!("{kind}_{i}"), p);
        }
    }
    w.line("");
    w.line(format!("/* What {name}_run returns where it has done nothing: no arena, or one that is not aligned; */"));
    w.line(format!("#define {up}_BAD_ARENA 1"));
    let in_arena = |ports: &[PlanPort]| ports.iter().any(|p| plan.buffer(p.buffer).offset.is_some());
    let place = |ports: &[PlanPort]| if in_arena(ports) { "not at its offset in the arena" } else { "NULL" };
    w.line(format!("/* an input that is {}; */", place(&plan.inputs)));
    w.line(format!("#define {up}_BAD_INPUT 2"));
    w.line(format!("/* an output that is {}. */", place(&plan.outputs)));
    w.line(format!("#define {up}_BAD_OUTPUT 3"));
    w.line("");
    w.line("#ifdef __cplusplus");
    w.line("extern \"C\" {");
    w.line("#endif");
    w.line("");
    w.line("/* Computes the outputs and returns 0. Tensors are dense, the last dimension innermost.");
    if in_arena(&plan.inputs) || in_arena(&plan.outputs) {
        if plan.arenas.len() > 1 {
            w.line(" * Each input and output lives in one of the arenas, named beside its offset: pass arena + offset. The run");
            w.line(" * may overwrite an input.");
        } else {
            w.line(" * Inputs and outputs live in the arena: pass arena + offset. The run may overwrite an input.");
        }
    } else {
        w.line(
            " * Inputs and outputs live outside the arena, aligned for their types and apart; inputs stay as they are.",
        );
    }
    w.line(" * Nothing needs to survive in the arena between runs. */");
    w.line(format!("{};", prototype(plan, name)));
    w.line("");
    w.line("#ifdef __cplusplus");
    w.line("}");
    w.line("#endif");
    w.line("");
    w.line("#endif");
    std::mem::take(w).finish()
}

/// Sizes, alignment and sections of the arenas.
fn arenas(w: &mut Writer, plan: &Plan, target: &Target, up: &str) {
    let several = plan.arenas.len() > 1;
    if several {
        w.line("/* The caller's working memory: one piece in each of these memories of the target, and how its start must be");
        w.line(" * aligned. A section is where a linker script usually puts objects for that memory. */");
    } else if plan.arenas[0].memory.is_some() {
        w.line("/* The caller's working memory, how its start must be aligned, and the linker section of the fastest memory");
        w.line(" * that holds it, where that is not the usual one. */");
    } else {
        w.line("/* The caller's working memory, and how its start must be aligned. */");
    }
    for (i, piece) in plan.arenas.iter().enumerate() {
        let prefix =
            if several { format!("{up}_ARENA_{}", of_memory(plan, i).to_uppercase()) } else { format!("{up}_ARENA") };
        w.line(format!("#define {prefix}_BYTES {}", plan.bytes_of_arena(i)));
        let memory = target.memories.iter().find(|m| Some(m.name.as_str()) == piece.memory.as_deref());
        if let Some(m) = memory.filter(|m| !m.section.is_empty()) {
            w.line(format!("#define {prefix}_SECTION {} /* {} */", names::string(&m.section), m.name));
        }
    }
    w.line(format!("#define {up}_ARENA_ALIGNMENT {}", plan.alignment));
}

fn port(w: &mut Writer, plan: &Plan, up: &str, which: &str, p: &PlanPort) {
    let prefix = format!("{up}_{which}");
    let note = match p.ty.dtype {
        DType::Bool => " (0 or 1)",
        DType::F16 => " (bits of an IEEE half-precision number)",
        DType::BF16 => " (bits of a bfloat16)",
        _ => "",
    };
    w.line(format!("/* {}: {}{note} */", names::comment(&p.name), p.ty));
    w.line(format!("#define {prefix}_NAME {}", names::string(&p.name)));
    w.line(format!("#define {prefix}_TYPE {}", c_type(p.ty.dtype)));
    w.line(format!("#define {prefix}_RANK {}", p.ty.rank()));
    if p.ty.rank() > 0 {
        let dims: Vec<String> = p.ty.shape.iter().map(usize::to_string).collect();
        w.line(format!("#define {prefix}_SHAPE {{{}}}", dims.join(", ")));
    }
    w.line(format!("#define {prefix}_BYTES {}", p.ty.bytes()));
    if let Some(at) = plan.buffer(p.buffer).offset {
        let (arena, at) = place(plan, at);
        if plan.arenas.len() > 1 {
            let note = format!("/* in arena_{} */", of_memory(plan, arena));
            w.line(format!("#define {prefix}_OFFSET {at} {note}"));
        } else {
            w.line(format!("#define {prefix}_OFFSET {at}"));
        }
    }
    if let Some(q) = p.quant {
        if let Some(scale) = float(q.scale.0) {
            w.line(format!("#define {prefix}_SCALE {scale} /* {} */", q.scale));
        }
        w.line(format!("#define {prefix}_ZERO_POINT ({})", q.zero_point));
    }
}
