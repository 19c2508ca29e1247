//! A loop with a fixed period: `cargo run --release --example realtime -- [MODEL.onnx [PERIOD_US [PERIODS]]]`.
//!
//! All that the loop needs is allocated before it: the session, the tensors, the histogram. In it there is a sensor (here
//! a counter), `Session::run`, which neither allocates nor takes a lock at one thread, and the wait for the next period.
//! Periods are counted from the start, so that a late one does not shift those after it.
//!
//! Printed are histograms of the jitter, which is how late each period began, and of the time that each run took. A
//! real system would also give the thread a real-time priority and lock its memory; both need rights.

use mcc::Options;
use mcc::ir::DType;
use std::time::{Duration, Instant};

/// Sleeping overshoots by some 50 us on a desktop kernel; what is left of the wait is spun away.
const SPIN: Duration = Duration::from_micros(150);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "tests/models/fm_lenet5_int8_qdq.onnx".into());
    let period = Duration::from_micros(args.next().map_or(Ok(1000), |a| a.parse())?);
    let periods: u32 = args.next().map_or(Ok(1000), |a| a.parse())?;

    let mut session = mcc::compile_file(path, &Options::host())?;
    let [input, output] = [session.inputs(), session.outputs()].map(|ports| match ports {
        [port] if port.ty.dtype == DType::F32 => Ok(port.ty.elements()),
        _ => Err("this example feeds models of one f32 input and one f32 output"),
    });
    let (mut image, mut scores) = (vec![0f32; input?], vec![0f32; output?]);
    // The first runs fault pages in and fill caches: they are no part of the loop.
    for _ in 0..10 {
        session.run(&[(&image).into()], &mut [(&mut scores).into()])?;
    }

    let (mut jitter, mut busy, mut missed) = (Histogram::default(), Histogram::default(), 0);
    let start = Instant::now();
    for tick in 0..periods {
        let due = period * tick;
        wait(start, due);
        let began = start.elapsed();
        jitter.add(began - due);
        image.fill((tick % 256) as f32 / 255.0);
        session.run(&[(&image).into()], &mut [(&mut scores).into()])?;
        let ended = start.elapsed();
        busy.add(ended - began);
        missed += u32::from(ended > due + period);
    }

    println!("{periods} periods of {period:?}; {missed} missed their deadline");
    jitter.print("began late by");
    busy.print("ran for");
    Ok(())
}

/// Returns `due` after `start`, or at once where that has passed.
fn wait(start: Instant, due: Duration) {
    if let Some(rest) = due.checked_sub(start.elapsed() + SPIN) {
        std::thread::sleep(rest);
    }
    while start.elapsed() < due {
        std::hint::spin_loop();
    }
}

/// Counts of durations: bucket `i` holds those below 2^i microseconds, the last one all others.
#[derive(Default)]
struct Histogram {
    counts: [u32; 16],
    most: Duration,
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let bucket = (u128::BITS - time.as_micros().leading_zeros()) as usize;
        self.counts[bucket.min(self.counts.len() - 1)] += 1;
        self.most = self.most.max(time);
    }

    fn print(&self, what: &str) {
        println!("{what} (at most {:?}):", self.most);
        let all: u32 = self.counts.iter().sum();
        for (bucket, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let bar = "#".repeat((60 * count).div_ceil(all) as usize);
            let last = bucket + 1 == self.counts.len();
            let bound = if last { format!(">= {}", 1 << (bucket - 1)) } else { format!("< {}", 1 << bucket) };
            println!("  {bound:>8} us {count:>7} {bar}");
        }
    }
}
