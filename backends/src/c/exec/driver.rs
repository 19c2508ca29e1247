//! The program around the models: it feeds them samples from `in.bin` and writes status and outputs to `out.bin`.

use super::{ExecError, Job, Sample};
use crate::c::CPort;
use crate::c::writer::Writer;
use std::fmt::Display;

/// What a driver's `main` returns where the input file ends early or the output file takes no more.
const NO_FILE: usize = 97;
/// The status of a run that wrote behind its arena.
pub const OVERRUN: i32 = 96;

/// Bytes behind a shared arena that no model may touch.
const GUARD: usize = 64;

/// C that runs every model on its samples, in order.
///
/// On a board all models share one arena, and bytes behind a model's own are watched. Elsewhere each has its own, so that
/// sanitizers see its end.
pub fn print(jobs: &[Job], board: bool) -> String {
    let mut w = Writer::default();
    ["stddef", "stdint", "string"].iter().for_each(|h| w.line(format!("#include <{h}.h>")));
    jobs.iter().for_each(|job| w.line(format!("#include \"{}.h\"", job.c.name)));
    w.line("int io_read(void *to, size_t bytes);");
    w.line("int io_write(const void *from, size_t bytes);");
    w.line("int driver_main(void);");
    if board {
        let most = |bytes: fn(&Job) -> usize| jobs.iter().map(bytes).max().unwrap_or(0);
        memory(&mut w, "arena", most(|j| j.c.arena_bytes) + GUARD);
        memory(&mut w, "outside", most(outside));
    }
    for job in jobs {
        model(&mut w, job, board);
    }
    w.open("int driver_main(void)");
    w.line("int code = 0;");
    for job in jobs {
        w.open("if (code == 0)");
        w.line(format!("code = all_of_{}();", job.c.name));
        w.close();
    }
    w.line("return code;");
    w.close();
    w.finish()
}

fn memory(w: &mut Writer, name: &str, bytes: usize) {
    w.line(format!("static _Alignas(64) unsigned char {name}[{}];", bytes.max(1)));
}

fn ports<'a>(job: &Job<'a>) -> impl Iterator<Item = &'a CPort> {
    job.c.inputs.iter().chain(&job.c.outputs)
}

/// Bytes of the inputs and outputs that are not in the arena, each aligned.
fn outside(job: &Job) -> usize {
    ports(job).filter(|p| p.offset.is_none()).map(|p| p.bytes.next_multiple_of(16)).sum()
}

/// A function that runs one model on its samples.
fn model(w: &mut Writer, job: &Job, board: bool) {
    let c = job.c;
    let mut free = 0;
    let mut place = |port: &CPort| match port.offset {
        Some(at) => format!("(void *)(arena + {at})"),
        None => {
            free += port.bytes.next_multiple_of(16);
            format!("(void *)(outside + {})", free - port.bytes.next_multiple_of(16))
        }
    };
    let inputs: Vec<String> = c.inputs.iter().map(&mut place).collect();
    let outputs: Vec<String> = c.outputs.iter().map(place).collect();
    w.open(format!("static int all_of_{}(void)", c.name));
    if !board {
        memory(w, "arena", c.arena_bytes);
        memory(w, "outside", outside(job));
    }
    w.open_for("sample", job.samples.len(), 1);
    w.line("memset(arena, 0xA5, sizeof arena);");
    w.line("memset(outside, 0xA5, sizeof outside);");
    let each = |w: &mut Writer, call: &str, place: &dyn Display, bytes: usize| {
        w.open(format!("if (!{call}({place}, {bytes}))"));
        w.line(format!("return {NO_FILE};"));
        w.close();
    };
    inputs.iter().zip(&c.inputs).for_each(|(place, p)| each(w, "io_read", place, p.bytes));
    // Several arenas are pieces of one memory.
    let arenas = c.arenas.iter().map(|start| format!("arena + {start}")).collect();
    let places = [arenas, inputs, outputs.clone()].concat();
    w.line(format!("int32_t code = {}_run({});", c.name, places.join(", ")));
    if board {
        w.open(format!("for (size_t i = {}; i < sizeof arena; i++)", c.arena_bytes));
        w.line(format!("code = code == 0 && arena[i] != 0xA5 ? {OVERRUN} : code;"));
        w.close();
    }
    each(w, "io_write", &"&code", 4);
    outputs.iter().zip(&c.outputs).for_each(|(place, p)| each(w, "io_write", place, p.bytes));
    w.close();
    w.line("return 0;");
    w.close();
}

/// The input file of the driver.
///
/// # Errors
/// [`ExecError::Inputs`] where a sample does not fit its model.
pub fn feed(jobs: &[Job]) -> Result<Vec<u8>, ExecError> {
    let mut bytes = Vec::new();
    for job in jobs {
        let expected: Vec<usize> = job.c.inputs.iter().map(|p| p.bytes).collect();
        for (sample, tensors) in job.samples.iter().enumerate() {
            let found: Vec<usize> = tensors.iter().map(Vec::len).collect();
            if found != expected {
                return Err(ExecError::Inputs { sample, found, expected });
            }
            bytes.extend(tensors.concat());
        }
    }
    Ok(bytes)
}

/// What the driver wrote: the outputs of every sample of every model.
///
/// # Errors
/// The model and the sample of the first run that gave an error, or after which nothing more was written.
pub fn split(jobs: &[Job], mut bytes: &[u8]) -> Result<Vec<Vec<Sample>>, (String, String)> {
    let mut all = Vec::new();
    for job in jobs {
        let mut samples = Vec::new();
        for i in 0..job.samples.len() {
            let at = || format!("model `{}`, sample {i}", job.c.name);
            let Some((code, rest)) = bytes.split_first_chunk() else { return Err(("an early end".into(), at())) };
            match i32::from_le_bytes(*code) {
                0 => {}
                OVERRUN => return Err(("a write behind its arena".into(), at())),
                code => return Err((format!("code {code}"), at())),
            }
            bytes = rest;
            let mut sample = Vec::new();
            for port in &job.c.outputs {
                let Some((head, tail)) = bytes.split_at_checked(port.bytes) else {
                    return Err(("an early end".into(), at()));
                };
                sample.push(head.to_vec());
                bytes = tail;
            }
            samples.push(sample);
        }
        all.push(samples);
    }
    if bytes.is_empty() { Ok(all) } else { Err(("too much output".into(), "all models".into())) }
}
