//! Aligned memory for arenas and constant pools.

/// One cache line; the unit in which aligned memory is allocated.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A zeroed block of bytes whose start is aligned to 64 bytes and never moves.
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// Alignment of the block's start, in bytes.
    pub const ALIGNMENT: usize = std::mem::align_of::<Line>();

    pub fn zeroed(len: usize) -> AlignedBytes {
        AlignedBytes { lines: vec![Line([0; 64]); len.div_ceil(Self::ALIGNMENT)], len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the lines are `len` or more initialised bytes without padding, borrowed mutably with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_aligned_and_zeroed_at_its_length() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let mut block = AlignedBytes::zeroed(len);
            assert_eq!(block.as_ptr().align_offset(AlignedBytes::ALIGNMENT), 0);
            assert_eq!(block.as_mut_slice(), vec![0; len]);
            block.as_mut_slice().fill(0xA5);
            assert_eq!(block.len(), len);
        }
    }
}
