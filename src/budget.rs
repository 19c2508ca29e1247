//! What of a model does not fit a chip's memory, what is to blame, and what would make it fit.

use crate::model::{Model, catalogue};
use crate::report::{KernelReport, MemoryReport, Report};
use mcc_backends::targets;
use mcc_ir::dtype::DType;
use mcc_ir::plan::Plan;
use mcc_ir::target::{Backend, MemoryKind, Target};
use mcc_passes::lower::{self, Goal, lower};

/// Buffers or kernels that a sentence names.
const NAMED: usize = 3;
/// Characters of a node's name that a sentence quotes.
const NAME_CHARS: usize = 60;

/// The bytes that a model may take; `None` where nothing limits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For the arena, and for inputs and outputs outside it.
    pub ram: Option<usize>,
    /// For constants and code.
    pub flash: Option<usize>,
}

impl Budget {
    /// The memory of a target.
    pub fn of(target: &Target) -> Budget {
        Budget { ram: target.ram, flash: target.flash }
    }

    /// Whether a model with this report fits.
    pub fn holds(&self, report: &Report) -> bool {
        let t = &report.totals;
        self.ram.is_none_or(|have| t.ram_bytes <= have)
            && self.flash.is_none_or(|have| t.flash_bytes_estimate <= have)
            && self.full(report).next().is_none()
    }

    /// The memories whose arena is larger than they are.
    fn full<'a>(&self, report: &'a Report) -> impl Iterator<Item = &'a MemoryReport> {
        report.memories.iter().filter(|m| m.kind == MemoryKind::Ram && m.arena_bytes > m.bytes)
    }

    /// One sentence for each memory that is too small, with what takes most of it.
    pub fn excess(&self, report: &Report) -> Vec<String> {
        let over = |what: &str, need: usize, have: Option<usize>, note: &str| {
            have.filter(|have| need > *have).map(|have| {
                let share = 100.0 * need as f64 / have.max(1) as f64;
                format!("{what}: {need} bytes are needed for {note}, {have} are there ({share:.0} %)")
            })
        };
        let t = &report.totals;
        let names = |kind: MemoryKind| {
            let names: Vec<&str> = report.memories.iter().filter(|m| m.kind == kind).map(|m| m.name.as_str()).collect();
            names.join(" + ")
        };
        let named = |what: &str, kind: MemoryKind| match names(kind) {
            names if names.is_empty() || names == what => what.to_string(),
            names => format!("{what} ({names})"),
        };
        let ram = named("ram", MemoryKind::Ram);
        let ram = over(&ram, t.ram_bytes, self.ram, "arena, inputs and outputs").or_else(|| {
            let m = self.full(report).next()?;
            let others = report.memories.iter().filter(|m| m.kind == MemoryKind::Ram).count() > 1;
            let note = if others {
                "the arena, whose buffers do not fit side by side in all of the RAM either"
            } else {
                "the arena"
            };
            over(&format!("ram {}", m.name), m.arena_bytes, Some(m.bytes), note)
        });
        let flash = over(
            &named("flash", MemoryKind::Flash),
            t.flash_bytes_estimate,
            self.flash,
            "constants and estimated code",
        );
        let ram = ram.map(|s| s + &peak(report));
        let flash = flash.map(|s| s + &heaviest(report));
        ram.into_iter().chain(flash).collect()
    }

    /// What would make the model fit, as far as a compilation shows it: another goal, a larger chip, 8-bit values.
    pub fn remedies(&self, model: &Model, plan: &Plan) -> Vec<String> {
        let mut remedies = Vec::new();
        let report = |target: &Target, goal: Goal| {
            let ram = if target.name == model.target.name { self.ram } else { target.ram };
            let options = lower::Options { goal, ram, ..model.lowering(model.io) };
            lower(&model.optimised, target, catalogue(target), options).ok().map(|p| Report::of(&p, target))
        };
        let goals = [(Goal::Size, "size"), (Goal::Balanced, "balanced"), (Goal::Time, "time")];
        let others = goals.into_iter().filter(|(goal, _)| *goal != model.goal);
        if let Some((_, name)) = others
            .filter_map(|(goal, name)| Some((report(&model.target, goal)?, name)))
            .find(|(report, _)| self.holds(report))
        {
            remedies.push(format!("it fits with `-O {name}`"));
        }
        let mut chips: Vec<&Target> = targets::all()
            .iter()
            .filter(|t| t.backend == Backend::C && t.ram.is_some() && t.flash.is_some() && t.name != model.target.name)
            .collect();
        chips.sort_by_key(|t| (t.ram, t.flash));
        let fits = |t: &&&Target| report(t, model.goal).is_some_and(|r| Budget::of(t).holds(&r));
        if let Some(chip) = chips.iter().find(fits) {
            remedies.push(format!("the smallest chip of `mcc targets` that holds it is {}", chip.name));
        }
        let is_float = |c: &&mcc_ir::plan::PlanConst| c.tensor.dtype() == DType::F32;
        let float: usize = plan.consts.iter().filter(is_float).map(|c| c.tensor.bytes().len()).sum();
        if 2 * float > plan.const_bytes() {
            remedies
                .push("quantised to 8 bits (QDQ), weights and activations take a quarter of their f32 bytes".into());
        }
        remedies
    }
}

/// The kernel that needs most of the arena, and what lives there.
fn peak(report: &Report) -> String {
    let Some(k) = report.peak() else { return String::new() };
    let mut live = report.live(k.index);
    live.sort_by_key(|b| std::cmp::Reverse(b.bytes));
    let named = live.iter().take(NAMED).map(|b| format!("{} bytes, {} {}", b.bytes, b.kind, quote(&b.origin)));
    format!("; most while kernel {} runs, {} {}: {}", k.index, k.op, quote(&k.origin), list(named, live.len()))
}

/// The kernels with the largest constants.
fn heaviest(report: &Report) -> String {
    let mut kernels: Vec<&KernelReport> = report.kernels.iter().filter(|k| k.weight_bytes > 0).collect();
    kernels.sort_by_key(|k| std::cmp::Reverse(k.weight_bytes));
    let named =
        kernels.iter().take(NAMED).map(|k| format!("{} bytes for {} {}", k.weight_bytes, k.op, quote(&k.origin)));
    if kernels.is_empty() { String::new() } else { format!("; most constants: {}", list(named, kernels.len())) }
}

/// Items in a row, and how many more there are.
fn list(items: impl Iterator<Item = String>, all: usize) -> String {
    let items: Vec<String> = items.collect();
    let more = all - items.len();
    items.join(", ") + &if more > 0 { format!(" and {more} smaller") } else { String::new() }
}

/// The nodes behind a value, quoted and cut short.
fn quote(origin: &[impl AsRef<str>]) -> String {
    let all = origin.iter().map(|n| n.as_ref()).collect::<Vec<_>>().join(", ");
    let mut text: String = all.chars().take(NAME_CHARS).flat_map(char::escape_debug).collect();
    if all.chars().nth(NAME_CHARS).is_some() {
        text.push_str("...");
    }
    format!("\"{text}\"")
}
