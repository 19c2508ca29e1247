//! The text form of plans, to be read by people and compared by tests. There is no parser: a plan is always made from a
//! graph, whose text form is the one to write by hand.
//!
//! `{}` prints buffers, constants and kernels; `{:#}` prints each kernel's loop nest below it as well.

use super::{Arg, Buffer, BufferKind, Kernel, Over, Overlap, Plan, PlanPort, Within};
use crate::packing::Packing;
use crate::text::{op_text, origin_text, quant_text, quoted};
use std::fmt::{self, Display, Formatter, Write};

/// The text form of a plan, without loop nests.
pub fn print(plan: &Plan) -> String {
    plan.to_string()
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan @{} {{", quoted(&self.name))?;
        writeln!(f, "    arena {} bytes, alignment {}", self.arena_bytes, self.alignment)?;
        for (i, arena) in self.arenas.iter().enumerate() {
            if let Some(memory) = &arena.memory {
                writeln!(f, "    arena {i} in {memory}: {} bytes from {}", self.bytes_of_arena(i), arena.start)?;
            }
        }
        writeln!(f, "    bounds live {} bytes, operator {} bytes", self.bounds.live, self.bounds.operator)?;
        self.inputs.iter().try_for_each(|p| port(f, "input", p))?;
        self.outputs.iter().try_for_each(|p| port(f, "output", p))?;
        for (i, b) in self.buffers.iter().enumerate() {
            writeln!(f, "    b{i}: {}", buffer_text(b))?;
        }
        for (i, c) in self.consts.iter().enumerate() {
            let (ty, packed) = (c.tensor.ty(), c.packing.packed_type(c.tensor.ty()));
            write!(f, "    k{i}: {ty}{} sha256:{}", origin_text(&c.origin), &c.tensor.sha256()[..16])?;
            if let Some(memory) = &c.memory {
                write!(f, " in {memory}")?;
            }
            match packing_text(&c.packing) {
                Some(text) => writeln!(f, " {text} {packed}")?,
                None => writeln!(f)?,
            }
        }
        for (i, k) in self.kernels.iter().enumerate() {
            writeln!(f, "    {i}: {}", kernel_text(k))?;
            if f.alternate() {
                k.nest.to_string().lines().try_for_each(|line| writeln!(f, "        {line}"))?;
            }
        }
        f.write_str("}\n")
    }
}

/// `None` where nothing changes.
fn packing_text(packing: &Packing) -> Option<String> {
    Some(match packing {
        Packing::None => return None,
        Packing::Permute(perm) => format!("permute{perm:?}"),
        Packing::Panel { rows, depth } => format!("panel(rows = {rows}, depth = {depth})"),
        Packing::Runs { run, rows, depth } => format!("runs(run = {run}, rows = {rows}, depth = {depth})"),
        Packing::WinogradPanel { rows } => format!("winograd_panel(rows = {rows})"),
        Packing::Pairs { rows } => format!("pairs(rows = {rows})"),
        Packing::PairRuns { rows, run } => format!("pair_runs(rows = {rows}, run = {run})"),
        Packing::Slices { channels, taps, group } => {
            format!("slices(channels = {channels}, taps = {taps}, group = {group})")
        }
        Packing::Winograd(form) => format!("winograd({form:?})"),
        Packing::Octets { rows } => format!("octets(rows = {rows})"),
        Packing::Fours { rows } => format!("fours(rows = {rows})"),
        Packing::Nibbles { of, low } => match packing_text(of) {
            Some(of) => format!("nibbles({of}, low = {low})"),
            None => format!("nibbles(low = {low})"),
        },
    })
}

fn port(f: &mut Formatter<'_>, what: &str, p: &PlanPort) -> fmt::Result {
    writeln!(f, "    {what} {}: {} in {}{}", quoted(&p.name), p.ty, p.buffer, quant_text(p.quant))
}

fn buffer_text(b: &Buffer) -> String {
    let mut s = match b.kind {
        BufferKind::Input(i) => format!("input {i}"),
        BufferKind::Output(i) => format!("output {i}"),
        BufferKind::Value => "value".into(),
        BufferKind::Scratch => "scratch".into(),
    };
    let place = b.offset.map_or("outside".to_string(), |at| format!("at {at}"));
    write!(s, ", {} bytes {place}, live {}..={}", b.bytes, b.first, b.last).expect("a string takes all");
    if let Some(Over { donor, how }) = b.over {
        match how {
            Overlap::InPlace => write!(s, ", in place of {donor}"),
            Overlap::Ahead(lead) => write!(s, ", {lead} ahead of {donor}"),
            Overlap::Behind(lead) => write!(s, ", {lead} behind {donor}"),
        }
        .expect("a string takes all");
    }
    if let Some(Within { whole, at }) = b.within {
        write!(s, ", {whole} from {at} on").expect("a string takes all");
    }
    s + &origin_text(&b.origin)
}

/// `b3 = conv2d b0, k0 {attributes} : f32[1x8x8x4] by nest, 1024 macs "conv1"`
fn kernel_text(k: &Kernel) -> String {
    let arg = |(arg, ty): (&Arg, &crate::types::TensorType)| match arg {
        Arg::Buffer(b) => format!("{b}: {ty}"),
        Arg::Const(c) => format!("{c}: {ty}"),
    };
    let args: Vec<String> = k.args.iter().zip(&k.arg_types).map(arg).collect();
    let mut s = format!("{} = {} : {} by {}", k.out, op_text(&k.op, &args.join(", ")), k.out_type, k.implementation);
    if !k.tables.is_empty() {
        let tables: Vec<String> = k.tables.iter().map(|t| t.to_string()).collect();
        write!(s, ", tables {}", tables.join(" ")).expect("a string takes all");
    }
    if let Some(scratch) = k.scratch {
        write!(s, ", scratch {scratch}").expect("a string takes all");
    }
    if k.macs > 0 {
        write!(s, ", {} macs", k.macs).expect("a string takes all");
    }
    s + &origin_text(&k.origin)
}
