//! Post-training quantisation: a float graph and statistics of its activations become a graph of QuantizeLinear and
//! DequantizeLinear, the form that quantised ONNX models have and that `integerise` turns into integer operators.
//!
//! What runs the model and collects the statistics is the facade's `calibrate`; here is the mathematics.
//!
//! - [`prepare`]: batch normalisations and biases go into the layers before them.
//! - [`equalise`]: scales move between layers, where all weights of a layer must share one.
//! - [`sites`]: which layers and activations become integer.
//! - [`histogram`]: activations seen, and where to clip them.
//! - [`columns`]: second moments of what layers read.
//! - [`weights`]: weights on few levels, rounded against those moments.
//! - [`rewrite`]: the quantised graph.

pub mod columns;
pub mod equalise;
pub mod histogram;
pub(crate) mod linear;
pub mod prepare;
pub mod reconstruct;
pub mod rewrite;
pub mod sites;
pub mod weights;

#[cfg(test)]
mod tests;

pub use histogram::{Grid, Histogram, Method};
pub use weights::Levels;

/// Widths of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// Weights and activations of 8 bits.
    #[default]
    Int8,
    /// Weights of 8 bits, activations of 16.
    Int16x8,
    /// Weights of 4 bits, activations of 8.
    W4a8,
    /// Weights of 2 bits, activations of 8. The first and the last layer have weights of 8 bits.
    W2a8,
    /// Weights -1, 0 and 1 with a scale a channel, activations of 8 bits; first and last layer as [`Scheme::W2a8`].
    Ternary,
    /// Weights -1 and 1 with a scale a channel, activations of 8 bits; first and last layer as [`Scheme::W2a8`].
    Binary,
}

impl Scheme {
    /// What activations become.
    pub fn grid(self) -> Grid {
        if self == Scheme::Int16x8 { Grid::I16 } else { Grid::I8 }
    }

    /// What the weights of layer `i` of `layers` become.
    pub fn levels(self, i: usize, layers: usize) -> Levels {
        let end = i == 0 || i + 1 == layers;
        match self {
            Scheme::Int8 | Scheme::Int16x8 => Levels::Int8,
            Scheme::W4a8 => Levels::Int4,
            _ if end => Levels::Int8,
            Scheme::W2a8 => Levels::Int2,
            Scheme::Ternary => Levels::Ternary,
            Scheme::Binary => Levels::Binary,
        }
    }

    /// Whether layers are fitted one after the other to what the quantised layers before them give.
    pub fn is_sequential(self) -> bool {
        !matches!(self, Scheme::Int8 | Scheme::Int16x8)
    }
}

/// Random numbers for samples, the same in every run (Steele, Lea and Flood's SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }
}
