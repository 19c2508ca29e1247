//! What the processor can do, as levels that kernels are written for.
//!
//! The level is chosen once, from the processor's features and never from its name. `MCC_CPU` forces a lower one.

use std::sync::OnceLock;

/// A set of instructions that kernels may use. Each includes those before it on its architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of the architecture has.
    Scalar,
    /// AArch64: Advanced SIMD.
    Neon,
    /// x86-64: AVX2 and FMA.
    Avx2,
    /// x86-64: AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64: AVX-512 with VNNI.
    Avx512Vnni,
}

/// The environment variable that forces a lower level.
pub const VARIABLE: &str = "MCC_CPU";

/// Why `MCC_CPU` cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    #[error("{VARIABLE} is \"{0}\", which is no level; levels are {list}", list = names(Level::ALL))]
    Unknown(String),
    #[error("{VARIABLE} asks for {asked}, which this processor lacks; it has {list}", asked = .0.name(), list = names(&available()))]
    Absent(Level),
}

impl Level {
    pub const ALL: &[Level] = &[Level::Scalar, Level::Neon, Level::Avx2, Level::Avx512, Level::Avx512Vnni];

    /// The name that `MCC_CPU` takes.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Vnni => "avx512vnni",
        }
    }

    /// Whether this processor has the level.
    pub fn is_available(self) -> bool {
        match self {
            Level::Scalar => true,
            Level::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                Level::Avx2.is_available()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => Level::Avx512.is_available() && std::arch::is_x86_feature_detected!("avx512vnni"),
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 | Level::Avx512Vnni => false,
        }
    }
}

/// The levels that this processor has, lowest first.
pub fn available() -> Vec<Level> {
    Level::ALL.iter().copied().filter(|l| l.is_available()).collect()
}

fn names(levels: &[Level]) -> String {
    levels.iter().map(|l| l.name()).collect::<Vec<_>>().join(", ")
}

/// The level for a value of `MCC_CPU`: the highest one where it is unset or empty.
///
/// # Errors
/// Where the value names no level, or one that this processor lacks.
pub fn choose(value: Option<&str>) -> Result<Level, CpuError> {
    let Some(name) = value.filter(|v| !v.is_empty()) else {
        return Ok(available().pop().unwrap_or(Level::Scalar));
    };
    let level = Level::ALL.iter().copied().find(|l| l.name() == name);
    let level = level.ok_or_else(|| CpuError::Unknown(name.to_string()))?;
    if level.is_available() { Ok(level) } else { Err(CpuError::Absent(level)) }
}

/// The level of this process, read from `MCC_CPU` and the processor the first time.
///
/// # Errors
/// As [`choose`].
pub fn level() -> Result<Level, CpuError> {
    static LEVEL: OnceLock<Result<Level, CpuError>> = OnceLock::new();
    let find = || choose(std::env::var_os(VARIABLE).map(|v| v.to_string_lossy().into_owned()).as_deref());
    LEVEL.get_or_init(find).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_level_unless_told() {
        let all = available();
        assert_eq!(all[0], Level::Scalar);
        assert_eq!(choose(None), Ok(all[all.len() - 1]));
        assert_eq!(choose(Some("")), choose(None));
        for level in Level::ALL {
            let want = if level.is_available() { Ok(*level) } else { Err(CpuError::Absent(*level)) };
            assert_eq!(choose(Some(level.name())), want);
        }
        let error = choose(Some("avx1024")).unwrap_err();
        assert!(error.to_string().ends_with("levels are scalar, neon, avx2, avx512, avx512vnni"), "{error}");
    }
}
