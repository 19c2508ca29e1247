//! What the blocks take: counts of work and of code, from which the target's table makes cycles and bytes.

use super::super::{strips, work};
use super::{Form, Gemm, Source, Style, nibbles};
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::costs::{Code, Work};
use mcc_ir::op::Op;

/// Loops over at most so many groups of a row are unrolled by compilers.
const UNROLLED: usize = 12;

impl Gemm {
    /// The work without the epilogue.
    fn work(&self) -> Work {
        let (rows, channels) = self.block();
        let groups = (self.padded() / self.group()) as f64;
        // Blocks of the last pixels and channels are smaller, but for those of shared half-words.
        let parts = matches!(self.form, Form::Bytes | Form::Nibbles);
        let count = |n: usize, block: usize| (if parts { n / block } else { n.div_ceil(block) }) as f64;
        let blocks = count(self.pixels, rows) * count(self.outs, channels);
        let work = Work::default().and("runs of the kernel", 1.0);
        // Blocks of a single pixel are others, and so are those whose few groups are unrolled.
        let few = parts && self.padded() / self.group() <= UNROLLED;
        let [name, grouped] = match (self.pixels, self.style) {
            (1, Style::F32) if channels == 8 => ["wide blocks", "wide groups"],
            (1, _) => ["single blocks", "single groups"],
            _ if few => ["blocks", "groups unrolled"],
            _ => ["blocks", "groups"],
        };
        let work = work.and(name, blocks).and(grouped, blocks * groups);
        let all = self.pixels.div_ceil(rows) * self.outs.div_ceil(channels);
        let work = if parts && all as f64 > blocks {
            let rest = (self.pixels * self.outs) as f64 - blocks * (rows * channels) as f64;
            let name = if few { "part products unrolled" } else { "part products" };
            work.and("part blocks", all as f64 - blocks).and(name, rest * groups)
        } else {
            work
        };
        self.rows_work(work)
    }

    /// The work with the epilogue.
    pub(super) fn all_work(&self, spec: &KernelSpec<'_>) -> Work {
        work::epilogue(nibbles::sums_work(self.work(), self), spec)
    }

    /// Adds what brings rows into working memory.
    fn rows_work(&self, work: Work) -> Work {
        let (pixels, padded) = (self.pixels as f64, self.padded() as f64);
        match &self.source {
            Source::Rows if self.gathers() => work.and("rows", pixels).and("copied", pixels * padded),
            Source::Rows => work,
            Source::Window { g, .. } => {
                let work = work::gathering(work, g);
                if self.stages() { work.and("staged rows", pixels).and("staged", pixels * padded) } else { work }
            }
        }
    }

    /// The same of the form that makes whole pixels.
    pub(super) fn strips_work(&self, op: &Op) -> Work {
        let pairs = self.pixels.div_ceil(2);
        let quads = (pairs * (self.outs / strips::CHANNELS)) as f64;
        let groups = self.padded() / 4;
        let work = Work::default()
            .and("runs of the kernel", 1.0)
            .and("blocks", pairs.div_ceil(self.pairs_at_once(op)) as f64)
            .and("pairs", pairs as f64)
            .and("quads", quads)
            .and("groups", quads * groups as f64)
            .and("turns", quads * groups.div_ceil(8) as f64);
        if self.shares(op) { work.and("copied", (self.pixels * self.depth) as f64) } else { self.rows_work(work) }
    }

    pub(super) fn code(&self, spec: &KernelSpec<'_>) -> Code {
        let (rows, channels) = self.block();
        let code = Code::own(self.rows_code(work::code(spec, usize::MAX, rows * channels)));
        match (self.form, self.pixels) {
            (Form::Pairs, 1) => code.sharing("pairs_1x8"),
            (Form::Pairs, _) => code.sharing("pairs_2x4"),
            (Form::Fours, 1) => code.sharing("fours_1x8"),
            (Form::Fours, _) => code.sharing("fours_2x4"),
            _ => code,
        }
    }

    /// Adds the code that brings rows into working memory.
    pub(super) fn rows_code(&self, code: Work) -> Work {
        match &self.source {
            Source::Rows if self.gathers() => code.and("copies", 1.0),
            Source::Rows => code,
            Source::Window { g, .. } => {
                let name = if g.clips(0) || g.clips(1) { "gathers with borders" } else { "gathers" };
                let rows = g.kernel[0].min(8);
                // Loops over a row's bytes are unrolled, as far as it goes.
                let bytes = rows * (g.kernel[1] * g.channels).min(192);
                code.and(name, 1.0)
                    .and("gathered rows", rows as f64)
                    .and("gathered bytes", bytes as f64)
                    .and("odd pixels", (self.pixels % 2) as f64)
            }
        }
    }
}
