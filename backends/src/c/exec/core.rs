//! Cores with a board in QEMU, and the tools that serve them.

use super::ExecError;
use mcc_ir::Target;

/// A cross compiler with its C library, and the emulator of its architecture, with the packages that they come with.
pub struct Tools {
    pub cc: &'static str,
    pub cc_package: &'static str,
    /// Prints the sizes of a program.
    pub size: &'static str,
    /// Which C library headers and functions come from.
    pub library: &'static str,
    pub emulator: &'static str,
    pub emulator_package: &'static str,
}

const ARM: Tools = Tools {
    cc: "arm-none-eabi-gcc",
    cc_package: "gcc-arm-none-eabi",
    size: "arm-none-eabi-size",
    library: "--specs=nano.specs",
    emulator: "qemu-system-arm",
    emulator_package: "qemu-system-arm",
};

const RISCV: Tools = Tools {
    cc: "riscv64-unknown-elf-gcc",
    cc_package: "gcc-riscv64-unknown-elf and picolibc-riscv64-unknown-elf",
    size: "riscv64-unknown-elf-size",
    library: "--specs=picolibc.specs",
    emulator: "qemu-system-riscv32",
    emulator_package: "qemu-system-misc",
};

/// A piece of a board's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub origin: usize,
    pub bytes: usize,
}

/// A core with a board in QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    M0,
    M4,
    M7,
    M33,
    M55,
    Rv32imc,
}

impl Core {
    pub const ALL: [Core; 6] = [Core::M0, Core::M4, Core::M7, Core::M33, Core::M55, Core::Rv32imc];

    /// The core of a target.
    ///
    /// # Errors
    /// [`ExecError::NoBoard`] for targets without an emulated board.
    pub fn of(target: &Target) -> Result<Core, ExecError> {
        let core = Core::ALL.into_iter().find(|c| c.name() == target.core);
        core.ok_or_else(|| ExecError::NoBoard(target.name.clone()))
    }

    /// As targets name it.
    pub fn name(self) -> &'static str {
        match self {
            Core::M0 => "cortex-m0",
            Core::M4 => "cortex-m4",
            Core::M7 => "cortex-m7",
            Core::M33 => "cortex-m33",
            Core::M55 => "cortex-m55",
            Core::Rv32imc => "rv32imc",
        }
    }

    pub fn tools(self) -> &'static Tools {
        if self == Core::Rv32imc { &RISCV } else { &ARM }
    }

    /// The compiler's flags for the core.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Core::M0 => &["-mcpu=cortex-m0", "-mthumb"],
            Core::M4 => &["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
            Core::M7 => &["-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
            Core::M33 => &["-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
            Core::M55 => &["-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"],
            Core::Rv32imc => &["-march=rv32imc", "-mabi=ilp32"],
        }
    }

    /// The emulator's flags that give the board.
    pub fn machine(self) -> &'static [&'static str] {
        match self {
            Core::M0 => &["-M", "microbit"],
            Core::M4 => &["-M", "mps2-an386"],
            Core::M7 => &["-M", "mps2-an500"],
            Core::M33 => &["-M", "mps2-an505"],
            Core::M55 => &["-M", "mps3-an547"],
            // Of QEMU's processors this one has the integer, multiplication and compressed instructions and no others.
            Core::Rv32imc => &["-M", "virt", "-cpu", "lowrisc-ibex", "-bios", "none"],
        }
    }

    /// Code memory and data memory of the board.
    pub fn memory(self) -> [Region; 2] {
        let region = |origin, bytes| Region { origin, bytes };
        match self {
            Core::M0 => [region(0, 256 << 10), region(0x2000_0000, 16 << 10)],
            Core::M4 | Core::M7 => [region(0, 4 << 20), region(0x2000_0000, 4 << 20)],
            Core::M33 => [region(0x1000_0000, 4 << 20), region(0x3800_0000, 2 << 20)],
            Core::M55 => [region(0, 512 << 10), region(0x2000_0000, 512 << 10)],
            Core::Rv32imc => [region(0x8000_0000, 16 << 20), region(0x8100_0000, 16 << 20)],
        }
    }
}
