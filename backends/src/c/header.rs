//! The header of an emitted model.

use super::consts::{c_type, float};
use super::names;
use super::writer::Writer;
use mcc_ir::plan::{Plan, PlanPort};
use mcc_ir::{DType, Target};

/// `int NAME_run(void *arena, ...)`.
pub fn prototype(plan: &Plan, name: &str) -> String {
    let mut params = vec!["void *arena".to_string()];
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
    w.line("/* The caller's working memory, and how its start must be aligned. */");
    w.line(format!("#define {up}_ARENA_BYTES {}", plan.arena_bytes));
    w.line(format!("#define {up}_ARENA_ALIGNMENT {}", plan.alignment));
    w.line("");
    w.line(format!("#define {up}_NUM_INPUTS {}", plan.inputs.len()));
    w.line(format!("#define {up}_NUM_OUTPUTS {}", plan.outputs.len()));
    for (kind, ports) in [("INPUT", &plan.inputs), ("OUTPUT", &plan.outputs)] {
        for (i, p) in ports.iter().enumerate() {
            w.line("");
            port(w, plan, &format!("{up}_{kind}_{i}"), p);
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
        w.line(" * Inputs and outputs live in the arena: pass arena + offset. The run may overwrite an input.");
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

fn port(w: &mut Writer, plan: &Plan, prefix: &str, p: &PlanPort) {
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
        w.line(format!("#define {prefix}_OFFSET {at}"));
    }
    if let Some(q) = p.quant {
        if let Some(scale) = float(q.scale.0) {
            w.line(format!("#define {prefix}_SCALE {scale} /* {} */", q.scale));
        }
        w.line(format!("#define {prefix}_ZERO_POINT ({})", q.zero_point));
    }
}
