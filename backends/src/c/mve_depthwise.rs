//! The assembly of depthwise 3x3 convolution with Helium, made to measure for one geometry.
//!
//! MVE has no multiply-accumulate of bytes lane by lane, so channels are taken one after the other. A channel is unpacked
//! into a plane of pairs of rows, byte `2 x + r` of pair `j` being row `2 j + r`, column x of the padded image: a patch of
//! 4x4 pixels at even coordinates is then four words, which one gather loads. With the nine weights at the right places of
//! a vector, one VMLADAVA makes an output: four of a patch at stride 1, one at stride 2. Eight outputs (two rows, four
//! columns) are made 8 bits together. "Rows" may be the image's columns, whichever wastes fewer lanes.

use mcc_ir::costs::Work;
use std::fmt::Write as _;

/// Weights of a channel in memory: nine, and zeros.
pub const WEIGHT_BYTES: usize = 12;

/// One image axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Axis {
    /// Pixels of input and output, and padding before the first.
    pub size: usize,
    pub out: usize,
    pub pad: usize,
    /// Bytes from one pixel to the next in input and output.
    pub step: usize,
    pub out_step: usize,
}

/// A geometry: the axis that rows run along, and the axis of row pairs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planes {
    pub along: Axis,
    pub across: Axis,
    pub stride: usize,
    pub channels: usize,
    /// Whether rows are the image's columns.
    pub transposed: bool,
}

impl Planes {
    /// Words of a pair of rows in the plane.
    fn words(&self) -> usize {
        let groups = self.along.out.div_ceil(4);
        if self.stride == 1 { 2 * groups + 1 } else { 4 * groups + 1 }
    }

    /// Pairs of rows in the plane.
    fn pairs(&self) -> usize {
        let pairs = self.across.out.div_ceil(2);
        if self.stride == 1 { pairs + 1 } else { 2 * pairs + 1 }
    }

    pub fn columns(&self) -> usize {
        2 * self.words()
    }

    pub fn rows(&self) -> usize {
        2 * self.pairs()
    }

    pub fn bytes(&self) -> usize {
        self.rows() * self.columns()
    }

    /// Pixels of an axis that reach the plane.
    fn used(&self, axis: Axis, room: usize) -> usize {
        axis.size.min(room.saturating_sub(axis.pad))
    }

    /// Whether offsets of two rows fit into 16 bits, and the function is otherwise possible.
    pub fn fits(&self) -> bool {
        let far = |step: usize, line: usize| 15 * step + line < 1 << 16;
        // And the first row's place into an instruction.
        let first = self.across.pad / 2 * 4 * self.words() + 2 * self.along.pad;
        far(self.along.step, self.across.step) && far(self.along.out_step, self.across.out_step) && first < 1 << 12
    }

    /// Instructions for one image, near enough to choose between two ways.
    pub fn instructions(&self) -> f64 {
        let weights =
            [("channels", 45.0), ("lines", 7.0), ("lines read", 5.0), ("patches", 30.0), ("patches at stride 2", 36.0)];
        let weight = |name| weights.iter().find(|(other, _)| *other == name).map_or(2.5, |(_, w)| *w);
        self.counts().into_iter().map(|(name, n)| if name == "filled" { 0.0 } else { n * weight(name) }).sum()
    }

    /// The work for one image.
    pub fn counts(&self) -> [(&'static str, f64); 6] {
        let lines = self.across.out.div_ceil(2);
        let patches = self.along.out.div_ceil(4) * lines;
        let read = self.used(self.along, self.columns()).div_ceil(4) * self.used(self.across, self.rows()).div_ceil(2);
        let all = |n: usize| (self.channels * n) as f64;
        [
            ("channels", all(1)),
            ("lines", all(lines)),
            ("lines read", all(self.pairs())),
            (if self.stride == 1 { "patches" } else { "patches at stride 2" }, all(patches)),
            ("patches read", all(read)),
            ("filled", self.bytes() as f64),
        ]
    }

    /// What its code is made of: most instructions are wide.
    pub fn size(&self) -> Work {
        Work::default().and("functions", 1.0).and("lines", self.assembly().lines().count() as f64)
    }

    pub fn name(&self) -> String {
        let Planes { along: a, across: b, stride, channels, transposed } = self;
        let side = if *transposed { "t" } else { "" };
        format!("depthwise_{}x{}x{channels}_{}x{}_{stride}_{}_{}{side}", a.size, b.size, a.out, b.out, a.pad, b.pad)
    }

    /// Tables of the function as words: corners of a patch; offsets of two rows, one row and two rows of output; places of
    /// weights.
    fn tables(&self) -> Vec<u32> {
        let row = 4 * self.words() as u32;
        let mut words = vec![0, 4, row, row + 4];
        let mut halves = |step: usize, line: usize| {
            words.extend((0..4).map(|i| (i * step) as u32 | ((i * step + line) as u32) << 16));
        };
        halves(self.along.step, self.across.step);
        halves(self.along.step, 0);
        halves(self.along.out_step, self.across.out_step);
        let outputs: &[[usize; 2]] = if self.stride == 1 { &[[0, 0], [1, 0], [0, 1], [1, 1]] } else { &[[0, 0]] };
        for [y, x] in outputs {
            let place = |byte: usize| {
                // Bytes of a patch: rows 0 and 1 of columns 0 to 3, then rows 2 and 3.
                let (row, column) = (byte / 8 * 2 + byte % 2, byte % 8 / 2);
                let inside = (*y..*y + 3).contains(&row) && (*x..*x + 3).contains(&column);
                match (inside, self.transposed) {
                    (false, _) => 9,
                    (true, false) => (row - y) * 3 + column - x,
                    (true, true) => (column - x) * 3 + row - y,
                }
            };
            words.extend((0..4).map(|i| (0..4).rev().fold(0, |w, j| w << 8 | place(4 * i + j) as u32)));
        }
        words
    }

    /// The definition of the function and its tables, where there are vectors.
    pub fn text(&self) -> String {
        let name = self.name();
        let tables: Vec<String> = self.tables().iter().map(|w| format!("{w}u")).collect();
        let mut text = format!(
            "\n#if @MVE\n/* Depthwise 3x3 of {} channels, one after the other by way of a plane, which holds the padding: see \
             $_depthwise. */\nstatic const uint32_t $_{name}_tables[{}] = {{\n    ",
            self.channels,
            tables.len()
        );
        for (i, line) in tables.chunks(8).enumerate() {
            let _ = write!(text, "{}{}", if i > 0 { ",\n    " } else { "" }, line.join(", "));
        }
        let _ = write!(
            text,
            "}};\n\n$_ASSEMBLY\nstatic void $_{name}(const int8_t *x $_UNUSED, const int8_t *w $_UNUSED,\n    \
             const int32_t *bias $_UNUSED, const float *scale $_UNUSED, int8_t *out $_UNUSED, int8_t *plane $_UNUSED,\n    \
             int32_t zero $_UNUSED, int32_t scale_step $_UNUSED, const uint32_t *tables $_UNUSED) {{\n    __asm__ volatile(\n"
        );
        for line in self.assembly().trim_end().lines() {
            let _ = writeln!(text, "        \"{line}\\n\\t\"");
        }
        text.push_str("    );\n}\n#endif");
        text
    }

    fn assembly(&self) -> String {
        let mut s = String::from("push {r0-r11, lr}\nvpush {d8-d15}\nsub sp, #40\n");
        constant(&mut s, "r4", self.channels as i64);
        s.push_str("str r4, [sp, #32]\n1:\n");
        self.unpack(&mut s);
        self.outputs(&mut s);
        s.push_str(
            "ldr r4, [sp, #32]\nsubs r4, #1\nstr r4, [sp, #32]\nbne.w 1b\n\
             add sp, #40\nvpop {d8-d15}\npop {r0-r11, pc}",
        );
        s
    }

    /// Brings the channel into the plane.
    fn unpack(&self, s: &mut String) {
        let (a, b) = (self.along, self.across);
        let columns = self.used(a, self.columns());
        let rows = self.used(b, self.rows());
        let (chunks, rest) = (columns / 4, columns % 4);
        let line = 4 * self.words();
        s.push_str(
            "ldr r3, [sp, #104]\nldr r1, [sp, #160]\nldr r5, [sp, #172]\nadds r4, r3, #1\nstr r4, [sp, #104]\n\
             vldrh.u16 q0, [r5, #16]\nvldrh.u16 q4, [r5, #32]\n",
        );
        let _ = writeln!(s, "addw r1, r1, #{}", b.pad / 2 * line + 2 * a.pad);
        constant(s, "r2", 4 * a.step as i64);
        for q in 1..4.min(chunks + (rest > 0) as usize) {
            let _ = writeln!(s, "vadd.i16 q{q}, q{}, r2", q - 1);
        }
        constant(s, "r7", 16 * a.step as i64);
        // One row alone, of the half of a pair that a mask of lanes picks.
        let single = |s: &mut String, mask: u32| {
            s.push_str("mov r9, r3\nmov r6, r1\n");
            let _ = write!(s, "movw r0, #{mask}\nvmsr p0, r0\n");
            for chunk in 0..chunks + (rest > 0) as usize {
                if chunk == chunks {
                    let _ = write!(s, "movw r0, #{}\nvmsr p0, r0\n", mask & ((1 << (4 * rest)) - 1));
                }
                s.push_str("vpstt\nvldrbt.u16 q5, [r9, q4]\nvstrbt.16 q5, [r6], #8\n");
                if chunk + 1 < chunks + (rest > 0) as usize {
                    s.push_str("add r9, r2\n");
                }
            }
        };
        let top = b.pad % 2 == 1 && rows > 0;
        if top {
            single(s, 0xcccc);
            constant(s, "r0", b.step as i64);
            s.push_str("add r3, r0\n");
            let _ = writeln!(s, "addw r1, r1, #{line}");
        }
        let left = rows - top as usize;
        if left / 2 > 0 {
            if rest > 0 {
                let _ = write!(s, "movs r0, #{}\nvctp.16 r0\n", 2 * rest);
            }
            let all = chunks + (rest > 0) as usize;
            // To the next pair of rows, from where the last load began.
            let moved = (all.saturating_sub(1)) / 4 * 16 * a.step;
            constant(s, "r9", 2 * b.step as i64 - moved as i64);
            constant(s, "lr", (left / 2) as i64);
            s.push_str("dls lr, lr\n2:\n");
            for chunk in 0..all {
                if chunk > 0 && chunk % 4 == 0 {
                    s.push_str("add r3, r7\n");
                }
                let q = chunk % 4;
                if chunk == chunks {
                    let _ = write!(s, "vpstt\nvldrbt.u16 q5, [r3, q{q}]\nvstrbt.16 q5, [r1], #8\n");
                } else {
                    let _ = write!(s, "vldrb.u16 q5, [r3, q{q}]\nvstrb.16 q5, [r1], #8\n");
                }
            }
            s.push_str("add r3, r9\n");
            let back = line as i64 - 8 * all as i64;
            let _ = writeln!(s, "{} r1, r1, #{}", if back < 0 { "subw" } else { "addw" }, back.abs());
            s.push_str("le lr, 2b\n");
        }
        if left % 2 == 1 {
            single(s, 0x3333);
        }
    }

    /// The channel's outputs from the plane.
    fn outputs(&self, s: &mut String) {
        let (a, b) = (self.along, self.across);
        s.push_str(
            "ldr r4, [sp, #172]\nldr r2, [sp, #108]\n\
             vldrb.u8 q5, [r4, #64]\nvldrb.u8 q0, [r2, q5]\n",
        );
        if self.stride == 1 {
            s.push_str(
                "vldrb.u8 q5, [r4, #80]\nvldrb.u8 q1, [r2, q5]\nvldrb.u8 q5, [r4, #96]\nvldrb.u8 q2, [r2, q5]\n\
                 vldrb.u8 q5, [r4, #112]\nvldrb.u8 q3, [r2, q5]\n",
            );
        }
        let _ = write!(s, "adds r2, #{WEIGHT_BYTES}\nstr r2, [sp, #108]\n");
        s.push_str(
            "ldr r0, [sp, #112]\nldr r2, [r0], #4\nstr r0, [sp, #112]\n\
             mov r1, sp\nvdup.32 q5, r2\nvstrw.32 q5, [r1]\nvstrw.32 q5, [r1, #16]\n\
             ldr r0, [sp, #116]\nldr r11, [r0]\nldr r2, [sp, #168]\nadd r0, r2\nstr r0, [sp, #116]\n\
             ldr r5, [sp, #164]\n\
             ldr r3, [sp, #156]\nadds r0, r3, #1\nstr r0, [sp, #156]\n\
             vldrw.u32 q4, [r4]\nvldrh.u16 q7, [r4, #48]\n\
             ldr r0, [sp, #160]\nsubs r0, #4\nvadd.i32 q4, q4, r0\n",
        );
        let line = 4 * self.words() as i64;
        if self.stride == 2 {
            let _ = write!(s, "movw r0, #{line}\nvadd.i32 q1, q4, r0\n");
        }
        let (groups, rest) = (a.out / 4, a.out % 4);
        let all = groups + (rest > 0) as usize;
        // Groups of a round, and rounds: short rows are written out.
        let unroll = (1..=3).rev().find(|u| groups.is_multiple_of(*u)).unwrap_or(1);
        let unroll = if groups <= 3 { groups } else { unroll };
        let row = |s: &mut String, mask: u32, label: usize| {
            if groups > unroll {
                constant(s, "r9", (groups / unroll) as i64);
                let _ = writeln!(s, "{label}:");
            }
            let forward = |s: &mut String| add(s, "r3", 4 * a.out_step as i64);
            for _ in 0..unroll {
                self.group(s, (mask != 0xffff).then_some(mask));
                forward(s);
            }
            if groups > unroll {
                let _ = write!(s, "subs r9, #1\nbne.w {label}b\n");
            }
            if rest > 0 {
                self.group(s, Some(mask & ((1 << (4 * rest)) - 1)));
            }
        };
        if b.out / 2 > 0 {
            constant(s, "r7", (b.out / 2) as i64);
            s.push_str("3:\n");
            row(s, 0xffff, 4);
            add(s, "r3", 2 * b.out_step as i64 - (4 * groups * a.out_step) as i64);
            let (rows, moved) = if self.stride == 1 { (1, 8) } else { (2, 16) };
            constant(s, "r0", rows * line - moved * all as i64);
            s.push_str("vadd.i32 q4, q4, r0\n");
            if self.stride == 2 {
                s.push_str("vadd.i32 q1, q1, r0\n");
            }
            s.push_str("subs r7, #1\nbne.w 3b\n");
        }
        if b.out % 2 == 1 {
            row(s, 0x3333, 5);
        }
    }

    /// Eight outputs: two rows of four, or those that a mask of lanes picks.
    fn group(&self, s: &mut String, mask: Option<u32>) {
        s.push_str("ldm r1, {r0, r2, r4, r6, r8, r10, r12, lr}\n");
        let (upper, lower) = (["r0", "r2", "r4", "r6"], ["r8", "r10", "r12", "lr"]);
        if self.stride == 1 {
            for i in [0, 2] {
                let _ = write!(
                    s,
                    "vldrw.u32 q5, [q4, #4]!\nvmladava.s8 {}, q5, q0\nvmladava.s8 {}, q5, q1\n\
                     vmladava.s8 {}, q5, q2\nvmladava.s8 {}, q5, q3\n",
                    upper[i],
                    lower[i],
                    upper[i + 1],
                    lower[i + 1]
                );
            }
        } else {
            for i in 0..4 {
                let _ = write!(
                    s,
                    "vldrw.u32 q5, [q4, #4]!\nvldrw.u32 q6, [q1, #4]!\n\
                     vmladava.s8 {}, q5, q0\nvmladava.s8 {}, q6, q0\n",
                    upper[i], lower[i]
                );
            }
        }
        s.push_str(
            "vmov q5[2], q5[0], r0, r4\nvmov q5[3], q5[1], r2, r6\n\
             vmov q6[2], q6[0], r8, r12\nvmov q6[3], q6[1], r10, lr\n\
             vcvt.f32.s32 q5, q5\nvcvt.f32.s32 q6, q6\nvmul.f32 q5, q5, r11\nvmul.f32 q6, q6, r11\n\
             vcvtn.s32.f32 q5, q5\nvcvtn.s32.f32 q6, q6\nvqmovnb.s32 q5, q5\nvqmovnt.s32 q5, q6\n\
             vqadd.s16 q5, q5, r5\nvqmovnb.s16 q5, q5\n",
        );
        match mask {
            None => s.push_str("vstrb.16 q5, [r3, q7]\n"),
            Some(mask) => {
                let _ = write!(s, "movw r0, #{mask}\nvmsr p0, r0\nvpst\nvstrbt.16 q5, [r3, q7]\n");
            }
        }
    }
}

/// Sets a register.
fn constant(s: &mut String, register: &str, value: i64) {
    let bits = value as u32;
    let _ = writeln!(s, "movw {register}, #{}", bits & 0xffff);
    if bits >> 16 != 0 {
        let _ = writeln!(s, "movt {register}, #{}", bits >> 16);
    }
}

/// Adds a constant to a register, by way of r0 where it is large.
fn add(s: &mut String, register: &str, value: i64) {
    match value {
        0 => {}
        1..=4095 => _ = writeln!(s, "addw {register}, {register}, #{value}"),
        -4095..=-1 => _ = writeln!(s, "subw {register}, {register}, #{}", -value),
        _ => {
            constant(s, "r0", value);
            let _ = writeln!(s, "add {register}, r0");
        }
    }
}
