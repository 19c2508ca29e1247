#!/usr/bin/env python3
"""Measures layers by every implementation that takes them, for the cost table of a core.

    scripts/mcu-costs.py cortex-m4 [--mcc target/release/mcc] [--shared ../shared] [--layers backends/costs/layers.mcc]
        [-o backends/costs/cortex-m4.csv] [--only TEXT] [--new] [--jobs 2]

`mcc targets --layers` writes the C of each layer by each implementation. Many go into one firmware image, which runs
on an emulated core under the counting plugin of the shared folder. Rows: layer, implementation, cycles of one run
(instructions on a Cortex-M55 and on RISC-V, whose cycles are not modelled), bytes of the kernel's own code. A second
file, NAME-functions.csv, holds the bytes of functions that kernels share. `--only` measures again the rows of which
layer or implementation contains TEXT, `--new` those that the data set lacks; the others stay. Then: mcc targets --fit
backends/costs/cortex-m4.csv -o backends/costs/cortex-m4.toml. Needs the compiler of the core, QEMU and gcc.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HARD = "-mthumb -mfloat-abi=hard"
ARM = ("arm-none-eabi-", "nano", "qemu-system-arm -M")
RISCV = ("riscv64-unknown-elf-", "picolibc", "qemu-system-riscv32 -bios none -cpu lowrisc-ibex -M")
BIG, SMALL = (0, 4 << 20, 0x20000000, 4 << 20), (0, 512 << 10, 0x20000000, 512 << 10)
# By target: tools, the machine, the compiler's options, where flash and RAM begin and their bytes, and what is counted. A
# Cortex-M0 is run as a subset of a Cortex-M4, with the same costs of instructions.
CORES = {
    "cortex-m0": (ARM, "mps2-an386", "-mcpu=cortex-m0 -mthumb", BIG, "m4_cycles"),
    "cortex-m4": (ARM, "mps2-an386", f"-mcpu=cortex-m4 {HARD} -mfpu=fpv4-sp-d16", BIG, "m4_cycles"),
    "cortex-m55": (ARM, "mps3-an547", f"-mcpu=cortex-m55 {HARD}", SMALL, "instructions"),
    "riscv32imc": (RISCV, "virt", "-march=rv32imc -mabi=ilp32", (0x80000000, 16 << 20, 0x81000000, 16 << 20),
                   "instructions"),
}
BOARD = pathlib.Path(__file__).resolve().parent.parent / "backends" / "src" / "c" / "board"
# What an image takes beside the layers.
SPARE = 32 << 10

MAIN = """
__attribute__((aligned(16))) static unsigned char arena[{arena}];
__attribute__((noinline)) void bench_begin(void) {{ __asm volatile("nop"); }}
__attribute__((noinline)) void bench_end(void) {{ __asm volatile("nop; nop"); }}
static void fill(unsigned at, unsigned bytes, int is_float) {{
    for (unsigned i = 0; i < bytes; i++) {{
        if (!is_float) arena[at + i] = (unsigned char)((i * 37u + 11u) * 2654435761u >> 24);
        else if (i % 4 == 0) {{
            float v = (float)((i * 2654435761u >> 16) & 4095u) / 1024.0f - 1.5f;
            memcpy(arena + at + i, &v, 4);
        }}
    }}
}}
int driver_main(void) {{
    int rc = 0;
{runs}
    return rc;
}}
"""


def sh(command, **more):
    run = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if run.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{run.stdout}")
    return run.stdout


def sections(name, path, tools):
    """Of an object file: bytes of the kernel's own code, of all code and constants, and of each helper function."""
    code = all_ = 0
    for line in sh([f"{tools}size", "-A", path]).splitlines():
        cells = line.split()
        if len(cells) == 3 and cells[0].startswith((".text", ".rodata", ".srodata", ".data")):
            all_ += int(cells[1])
            code += int(cells[1]) if cells[0].startswith(".text") else 0
    helpers = {}
    for line in sh([f"{tools}nm", "-S", path]).splitlines():
        cells = line.split()
        if len(cells) == 4 and cells[2] in "tT" and not cells[3].startswith((f"{name}_k", f"{name}_run")):
            # Clones that GCC makes are the function, too.
            helper = cells[3].removeprefix(f"{name}_").split(".")[0]
            helpers[helper] = helpers.get(helper, 0) + int(cells[1], 16)
    return code - sum(helpers.values()), all_, helpers


def compile_source(source, folder, gcc, tools):
    path = folder / source["name"]
    sh([*gcc, "-O3", "-c", f"{path}.c", "-o", f"{path}.o"])
    source["code"], source["flash"], source["helpers"] = sections(source["name"], f"{path}.o", tools)


def images(sources, flash, ram):
    """Sources that fit into one image, list by list."""
    group, bytes_ = [], 0
    for source in sources:
        if source["arena_bytes"] + SPARE > ram:
            sys.exit(f"{source['layer']} takes more memory than the machine has")
        if bytes_ + source["flash"] + SPARE > flash and group:
            yield group
            group, bytes_ = [], 0
        group.append(source)
        bytes_ += source["flash"]
    if group:
        yield group


def run_image(group, number, folder, gcc, core):
    """The plugin's figures of each source of an image."""
    (tools, _, emulator), machine, _, memory, _ = core
    runs = []
    for s in group:
        for port in s["inputs"]:
            runs.append(f"    fill({port['offset']}, {port['bytes']}, {int(port['type'] == 'float')});")
        at = ", ".join(f"(void *)(arena + {p['offset']})" for p in s["inputs"] + s["outputs"])
        runs.append(f"    bench_begin(); rc |= {s['name']}_run(arena, {at}); bench_end();")
    arena = max(s["arena_bytes"] for s in group)
    text = "#include <string.h>\n" + "".join(f'#include "{s["name"]}.h"\n' for s in group)
    base = folder / f"image{number}"
    base.mkdir()
    # The start-up code opens a file for input.
    (base / "in.bin").touch()
    main, script, elf, log = (base / name for name in ("main.c", "board.ld", "image.elf", "log"))
    main.write_text(text + MAIN.format(arena=max(arena, 16), runs="\n".join(runs)))
    board = (BOARD / "bare.ld").read_text()
    for name, value in zip(["FLASH_ORIGIN", "FLASH_BYTES", "RAM_ORIGIN", "RAM_BYTES"], memory):
        board = board.replace(name, hex(value))
    script.write_text(board)
    objects = [folder / f"{s['name']}.o" for s in group]
    sh([*gcc, "-O1", "-w", "-I", folder, "-nostartfiles", "-T", script, "-Wl,--gc-sections", BOARD / "bare.c", main, *objects,
        "-lm", "-o", elf])
    symbols = {c[2]: int(c[0], 16) & ~1 for c in map(str.split, sh([f"{tools}nm", elf]).splitlines()) if len(c) == 3}
    plugin = f"{folder / 'plugin.so'},begin={symbols['bench_begin']:#x},end={symbols['bench_end']:#x},top=0"
    sh([*emulator.split(), machine, "-nographic", "-monitor", "none", "-serial", "none", "-semihosting-config",
        "enable=on,target=native", "-kernel", elf, "-d", "plugin", "-D", log, "-plugin", plugin],
       stdin=subprocess.DEVNULL, cwd=base)
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"region')]
    if len(found) != len(group):
        sys.exit(f"image {number}: {len(found)} runs of {len(group)} were seen")
    return found


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("target", choices=CORES)
    args.add_argument("--mcc", type=pathlib.Path, default="target/release/mcc")
    args.add_argument("--shared", type=pathlib.Path, default="../shared")
    args.add_argument("--layers", type=pathlib.Path, default="backends/costs/layers.mcc")
    args.add_argument("-o", "--output", type=pathlib.Path)
    args.add_argument("--only", default="")
    args.add_argument("--new", action="store_true")
    args.add_argument("--jobs", type=int, default=os.cpu_count())
    args = args.parse_args()
    output = args.output or pathlib.Path(f"backends/costs/{args.target}.csv")
    core = CORES[args.target]
    (tools, library, _), _, arch, memory, unit = core
    gcc = [f"{tools}gcc", *arch.split(), "-ffunction-sections", "-fdata-sections", f"--specs={library}.specs"]
    rows = {}
    keep = (args.only or args.new) and output.exists()
    if keep:
        rows = {(row[0], row[1]): row[2:] for row in csv.reader(output.open()) if row[0] != "layer"}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        sh([args.mcc.resolve(), "targets", "--layers", args.layers, "--target", args.target, "-o", folder])
        sh(["gcc", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-o", folder / "plugin.so",
            args.shared / "tools" / "mcu" / "cm4model.c"])
        index = json.loads((folder / "index.json").read_text())
        sources = [s for s in index if args.only in s["layer"] or args.only in s["implementation"]]
        if args.new:
            sources = [s for s in sources if (s["layer"], s["implementation"]) not in rows]
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda s: compile_source(s, folder, gcc, tools), sources))
            groups = list(images(sources, memory[1], memory[3]))
            run = lambda i: run_image(groups[i], i, folder, gcc, core)
            for group, found in zip(groups, pool.map(run, range(len(groups)))):
                for s, figures in zip(group, found):
                    rows[s["layer"], s["implementation"]] = [figures[unit], s["code"]]
        # In the order of the layers and of the catalogue.
        order = [(s["layer"], s["implementation"]) for s in index]
    with output.open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["layer", "implementation", "instructions" if unit == "instructions" else "cycles", "code"])
        writer.writerows([*key, *rows[key]] for key in order if key in rows)
    functions = output.with_name(output.stem + "-functions.csv")
    helpers = {}
    if keep and functions.exists():
        helpers = {row[0]: [int(row[1])] for row in csv.reader(functions.open()) if row[0] != "function"}
    for source in sources:
        for name, size in source["helpers"].items():
            helpers.setdefault(name, []).append(size)
    with functions.open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["function", "bytes"])
        writer.writerows([name, sorted(sizes)[len(sizes) // 2]] for name, sizes in sorted(helpers.items()))
    print(f"{len(sources)} measured, {len(rows)} rows in {output}")


if __name__ == "__main__":
    main()
