//! How a call of a kernel is cut into pieces, and how threads share them.
//!
//! A piece is rows or channels of the output. No sum is ever cut, so the result has the same bits however many threads
//! compute it, and whichever computes what.

use super::{Kernel, Prepared};
use crate::team::Team;
use std::ops::Range;
use std::sync::Arc;

/// Estimated cycles of a call from which on threads share it, some 60 microseconds. Measured on two cores at 3.7 GHz: with
/// a quarter of that, ResNet-8, whose layers take 10 to 40 microseconds, was 5 % slower on two threads than on one.
const ENOUGH: f64 = 200_000.0;
/// Parts for each thread: more than one, so that a thread that is held up leaves some to the others.
const PARTS: usize = 2;
/// Bytes of operands that come from a far cache in a cycle, about.
const BYTES_PER_CYCLE: f64 = 8.0;

/// The threads of a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threads {
    /// The caller's among them; 0 counts as 1.
    pub count: usize,
    /// Estimated cycles of a kernel's call from which on they share it.
    pub enough: f64,
}

impl Threads {
    /// So many threads, for the calls where sharing pays.
    pub fn new(count: usize) -> Threads {
        Threads { count, enough: ENOUGH }
    }
}

/// What of a kernel is to be computed.
pub struct Part {
    /// The window of the output.
    pub step: usize,
    /// Pieces of the window.
    pub pieces: Range<usize>,
}

/// The pieces of a product: rows of the output, or panels of its channels.
#[derive(Clone, Debug)]
pub struct Cut {
    rows: usize,
    panels: usize,
    by_panels: bool,
}

impl Cut {
    /// Of so many rows and panels. What a thread reads is all of the weights and some of x by rows, all of x and some of
    /// the weights by panels.
    pub fn new(rows: usize, panels: usize, x_bytes: usize, weight_bytes: usize) -> Cut {
        Cut { rows, panels, by_panels: rows == 1 || (weight_bytes > x_bytes && panels >= 4) }
    }

    pub fn pieces(&self) -> usize {
        if self.by_panels { self.panels } else { self.rows }
    }

    /// The rows and the panels of some pieces.
    pub fn ranges(&self, pieces: &Range<usize>) -> (Range<usize>, Range<usize>) {
        if self.by_panels { (0..self.rows, pieces.clone()) } else { (pieces.clone(), 0..self.panels) }
    }
}

/// The threads that share a kernel's calls, each of which has so many parts.
pub struct Sharing {
    pub team: Arc<Team>,
    pub parts: u32,
}

/// A kernel as compiled code knows it.
pub struct Task<K> {
    pub kernel: K,
    pub sharing: Option<Sharing>,
}

/// A task of any kernel.
pub trait AnyTask: Send + Sync {
    fn pieces(&self) -> usize;
    fn share(&mut self, sharing: Sharing);
    fn address(&self) -> *const u8;
}

impl<K: Kernel> AnyTask for Task<K> {
    fn pieces(&self) -> usize {
        self.kernel.pieces()
    }

    fn share(&mut self, sharing: Sharing) {
        self.sharing = Some(sharing);
    }

    fn address(&self) -> *const u8 {
        (&raw const *self).cast()
    }
}

/// What a kernel works on; [`Kernel::run`] tells.
#[derive(Clone, Copy)]
struct Operands {
    x: *const u8,
    w: *const u8,
    extra: *const u8,
    out: *mut u8,
}

// SAFETY: threads read all of it but the output, of which each writes its pieces.
unsafe impl Sync for Operands {}

/// Computes a window, as [`super::KernelFn`] says.
///
/// # Safety
/// `params` must be the address of a task of K; else as [`Kernel::run`].
pub unsafe extern "C" fn enter<K: Kernel>(
    params: *const u8,
    step: usize,
    x: *const u8,
    w: *const u8,
    extra: *const u8,
    out: *mut u8,
    scratch: *mut u8,
) {
    // SAFETY: the caller's contract.
    let Task { kernel, sharing } = unsafe { &*params.cast::<Task<K>>() };
    let all = kernel.pieces();
    let Some(Sharing { team, parts }) = sharing else {
        // SAFETY: the caller's contract.
        return unsafe { kernel.run(&Part { step, pieces: 0..all }, x, w, extra, out, scratch) };
    };
    let operands = Operands { x, w, extra, out };
    let start = |part: usize| part * all / *parts as usize;
    team.run(*parts, scratch, &|part, scratch| {
        // All of them at once: their fields are not `Sync`.
        let Operands { x, w, extra, out } = { operands };
        let pieces = start(part)..start(part + 1);
        // SAFETY: the caller's contract; the parts are pieces of their own, and the team gives each thread scratch memory
        // as long as the kernel's.
        unsafe { kernel.run(&Part { step, pieces }, x, w, extra, out, scratch) }
    });
}

/// Lets threads share the kernels that are large enough, where there are any.
///
/// # Errors
/// Where the system starts no more threads.
pub fn share(kernels: &mut [Prepared], threads: Threads) -> std::io::Result<()> {
    let Threads { count, enough } = threads;
    let parts = |kernel: &Prepared| {
        let work = kernel.cycles.max(kernel.bytes as f64 / BYTES_PER_CYCLE) / kernel.windows as f64;
        // No part is smaller than a fifth of what is enough.
        let most = kernel.task.pieces().min(count * PARTS).min((5.0 * work / enough) as usize);
        (work >= enough && most > 1).then_some(most as u32)
    };
    let shared: Vec<(&mut Prepared, u32)> = kernels.iter_mut().filter_map(|k| parts(k).map(|p| (k, p))).collect();
    if count <= 1 || shared.is_empty() {
        return Ok(());
    }
    let scratch = shared.iter().map(|(k, _)| k.private_bytes).max().unwrap_or(0);
    let team = Arc::new(Team::new(count - 1, scratch)?);
    for (kernel, parts) in shared {
        kernel.task.share(Sharing { team: team.clone(), parts });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_along_what_is_read_less() {
        let few_weights = Cut::new(10, 8, 1000, 100);
        assert_eq!((few_weights.pieces(), few_weights.ranges(&(2..5))), (10, (2..5, 0..8)));
        let many_weights = Cut::new(10, 8, 100, 1000);
        assert_eq!((many_weights.pieces(), many_weights.ranges(&(2..5))), (8, (0..10, 2..5)));
        assert_eq!(Cut::new(10, 2, 100, 1000).pieces(), 10);
        assert_eq!(Cut::new(1, 2, 1000, 100).pieces(), 2);
    }
}
