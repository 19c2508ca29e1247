#!/usr/bin/env python3
"""Compares mcc on this machine with ONNX Runtime, OpenVINO, LiteRT and tract.

    cargo build --release
    scripts/host-bench.py [--threads 1,2] [--tract] [--shared ../shared] [--rounds 10] [MODEL...]

MODEL is a part of a name in the shared folder's models; without any, the MLPerf Tiny models, and those of the list CORPUS
that are there. The runtimes take turns, a round of inferences each, on random inputs of the shapes of the stored case, on as many
cores as threads; minimum and median of all inferences count. Tables are in Markdown, one for each number of threads; times are microseconds.

- "ratio" is mcc's minimum by that of the fastest runtime: below 1, mcc is faster. OpenVINO is kept to f32.
- "roofline" is what the model would take at the machine's limits: for each of mcc's kernels, the operations at the peak of
  multiply-adds in f32 or int8, or its weights, and its result written and read once, at the bandwidth of reading as many
  bytes as the model's weights and arena have, whichever takes longer. Both are measured between the rounds, by a C program
  that the script builds. "x 1.15" is the goal where others lie below it, "reached" the roofline by mcc's time.
- "load" is from the file to a session, the least of some new processes; libraries are loaded before.
- "memory" is what making a session and running it adds to the most memory that its process ever held, in MiB. Each runtime
  has a process of its own, and what Python and the loaded libraries take is not counted, nor are mcc's own code and data.

Peers are installed in an environment of their own, target/host-bench-venv; one that cannot be installed is left out. LiteRT
runs NAME.tflite, which has to lie beside NAME.onnx. --tract builds a program with tract in target/host-bench-tract.
"""

import argparse
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import venv
import zipfile

HERE = pathlib.Path(__file__).parent
PACKAGES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino", "LiteRT": "ai-edge-litert"}
CORPUS = [
    "mlperf_ic_", "mlperf_kws_float", "mlperf_kws_int8", "mlperf_vww_", "mlperf_ad_", "fm_lstm", "fm_gru",
    "tv_squeezenet", "tv_mobilenet", "tv_shufflenet", "tv_resnet10", "tv_vgg16", "tv_alexnet", "timm_vit", "ppocr",
]  # fmt: skip
# Other exports of models in the list.
DOUBLES = {"fm_lstm_dynamo", "fm_gru_dynamo"}
# New processes whose load times count.
LOADS = 4
BYTES = {"f32": 4, "i32": 4, "i64": 8, "i16": 2, "i8": 1, "u8": 1, "bool": 1}


def note(text):
    print(text, file=sys.stderr, flush=True)


def environment(folder):
    """The Python of an environment with the peers, and the peers that it has."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    have = []
    for peer, package in PACKAGES.items():
        there = subprocess.run([python, "-c", f"import numpy, {package.replace('-', '_')}"], capture_output=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "numpy", package]
        if there.returncode == 0 or subprocess.run(pip, stdout=sys.stderr).returncode == 0:
            have.append(peer)
        else:
            note(f"{peer} is left out: {package} cannot be installed")
    return python, have


def build_tract():
    """The program that runs tract, built outside the workspace; None where it cannot be built."""
    folder = pathlib.Path("target/host-bench-tract").resolve()
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "Cargo.toml").write_text(
        '[package]\nname = "host-bench-tract"\nversion = "0.0.0"\nedition = "2024"\n\n'
        '[dependencies]\ntract-onnx = "0.23"\n\n[workspace]\n'
    )
    (folder / "src" / "main.rs").write_text((HERE / "host-bench" / "tract.rs").read_text())
    command = ["cargo", "build", "--release", "--quiet", "--target-dir", folder / "target"]
    if subprocess.run(command, cwd=folder, stdout=sys.stderr).returncode != 0:
        note("tract is left out: its program cannot be built")
        return None
    return folder / "target" / "release" / "host-bench-tract"


def build_probe():
    """The program that measures the machine; None without a C compiler."""
    probe = pathlib.Path("target/host-bench-probe")
    probe.parent.mkdir(exist_ok=True)
    source = HERE / "host-bench" / "probe.c"
    command = ["cc", "-std=gnu11", "-O3", "-march=native", "-pthread", source, "-o", probe]
    try:
        if subprocess.run(command, stdout=sys.stderr).returncode == 0:
            return probe
    except FileNotFoundError:
        pass
    note("no roofline: cc cannot build the program that measures it")
    return None


def shapes_of(model):
    """The shapes of inputs as NAME=SIZE,SIZE,..., from the stored case io/NAME.npz; a model without one has static shapes."""
    case = model.parent / "io" / f"{model.stem}.npz"
    if not case.exists():
        return []
    shapes = []
    with zipfile.ZipFile(case) as archive:
        for name in archive.namelist():
            if name.startswith("in:"):
                header = archive.read(name)[:4096].decode("latin-1")
                dims = re.search(r"'shape': \(([^)]*)\)", header)[1].replace(" ", "").strip(",")
                shapes.append(f"{name.removeprefix('in:').removesuffix('.npy')}={dims}")
    return [s for s in shapes if not s.endswith("=")]


class Peer:
    """A runtime with one model, in a process of its own.

    The process tells in a line of JSON how long its session took to create, and how much memory where it knows; then it
    answers a number with the times of so many inferences, a JSON list.
    """

    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.times = []
        line = self.process.stdout.readline()
        self.about = json.loads(line) if line.startswith("{") else None

    def why(self):
        """The last line of what a dead process said."""
        return (self.process.communicate()[1].strip().splitlines() or ["no reason given"])[-1]

    def turn(self, runs):
        print(runs, file=self.process.stdin, flush=True)
        self.times += json.loads(self.process.stdout.readline())

    def close(self):
        self.process.communicate()


def bench(mcc, model, threads, runs, per_node=False):
    """Some inferences of mcc, in a new process; None where it does not run the model."""
    command = [mcc, "bench", model, "--runs", str(runs), "--threads", str(threads), "--json"]
    command += [part for shape in shapes_of(model) for part in ("--input-shape", shape)]
    result = subprocess.run(command + ["--per-node"] * per_node, capture_output=True, text=True)
    if result.returncode != 0:
        note(f"mcc does not run {model.stem}: {(result.stderr.strip().splitlines() or ['?'])[0]}")
        return None
    return json.loads(result.stdout)


class Machine:
    """The most that was measured so far, by threads: operations a second, and bytes a second by size."""

    def __init__(self, probe):
        self.probe, self.peaks = probe, {}

    def measure(self, threads, size):
        if self.probe is None:
            return
        result = json.loads(subprocess.run([self.probe, str(threads), str(size)], capture_output=True).stdout)
        for key, value in [("f32", result["f32"]), ("int8", result["int8"]), (size, result["read"])]:
            self.peaks[threads, key] = max(value, self.peaks.get((threads, key), 0))

    def roofline(self, threads, size, nodes):
        """Microseconds of the kernels at the machine's limits; None where nothing was measured."""
        if self.probe is None:
            return None
        total = 0
        for node in nodes:
            result = math.prod(node["output_shape"]) * BYTES.get(node["output_type"], 1)
            kind = "f32" if node["output_type"] == "f32" else "int8"
            compute = 2 * node["macs"] / self.peaks[threads, kind]
            memory = (node["weight_bytes"] + 2 * result) / self.peaks[threads, size]
            total += max(compute, memory)
        return total * 1e6


def measure(args, threads, machine, peers, model):
    """What was measured of one model; None where mcc does not run it."""
    first = bench(args.mcc, model, threads, 3, per_node=True)
    if first is None:
        return None
    size = max(16384, first["weight_bytes"] + first["arena_bytes"])
    workers, commands, loads = {}, {}, {}
    for name, command in peers.items():
        if name == "LiteRT" and not model.with_suffix(".tflite").exists():
            note(f"LiteRT is left out for {model.stem}: there is no {model.with_suffix('.tflite')}")
            continue
        commands[name] = [*command, model, str(threads), *shapes_of(model)]
        worker = Peer(commands[name])
        if worker.about is None:
            note(f"{name} does not run {model.stem}: {worker.why()}")
            continue
        workers[name], loads[name] = worker, [worker.about["load_us"]]
    runs = max(3, min(2000, int(args.seconds * 1e6 / args.rounds / first["min_us"])))
    rounds = []
    for i in range(args.rounds):
        machine.measure(threads, size)
        rounds.append(bench(args.mcc, model, threads, runs))
        for name, worker in workers.items():
            worker.turn(runs)
            if i + 1 < LOADS:
                another = Peer(commands[name])
                loads[name].append(another.about["load_us"])
                another.close()
    for worker in workers.values():
        worker.close()
    return {
        "name": model.stem,
        "min": min(r["min_us"] for r in rounds),
        "median": statistics.median(r["median_us"] for r in rounds),
        "load": min(r["compile_ms"] for r in [first, *rounds][:LOADS]),
        "memory": min((r["session_peak_bytes"] for r in rounds if r.get("session_peak_bytes")), default=None),
        "roofline": machine.roofline(threads, size, first["nodes"]),
        "peers": {
            name: {
                "min": min(w.times),
                "median": statistics.median(w.times),
                "load": min(loads[name]) / 1e3,
                "memory": w.about.get("session_peak_bytes"),
            }
            for name, w in workers.items()
        },
    }


def cell(value, digits=1, scale=1):
    return "" if value is None else f"{value / scale:.{digits}f}"


def ratio(a, b):
    return "" if not a or not b else f"{a / b:.2f}"


def print_table(head, rows):
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def times_table(results, peers):
    rows = []
    for r in results:
        fastest = min(r["peers"], key=lambda p: r["peers"][p]["min"], default=None)
        pairs = [r, *(r["peers"].get(p) for p in peers)]
        roofline = r["roofline"]
        rows.append(
            [r["name"]]
            + ["" if p is None else f"{p['min']:.1f} / {p['median']:.1f}" for p in pairs]
            + [ratio(r["min"], fastest and r["peers"][fastest]["min"]), fastest or ""]
            + [cell(roofline), cell(roofline and 1.15 * roofline), ratio(roofline, r["min"])]
        )
    head = [f"{p} min / median" for p in ["mcc", *peers]]
    print_table(["model", *head, "ratio", "to", "roofline", "x 1.15", "reached"], rows)


def start_table(results, peers):
    """Load times and memory, and mcc's by those of ONNX Runtime."""
    rows = []
    for r in results:
        sides = [r, *(r["peers"].get(p, {}) for p in peers)]
        ort = r["peers"].get("ONNX Runtime", {})
        rows.append(
            [r["name"]]
            + [cell(s.get("load")) for s in sides]
            + [ratio(r["load"], ort.get("load"))]
            + [cell(s.get("memory"), 1, 2**20) for s in sides]
            + [ratio(r["memory"], ort.get("memory"))]
        )
    names = ["mcc", *peers]
    head = [f"load ms {n}" for n in names] + ["to ONNX Runtime"] + [f"memory MiB {n}" for n in names] + ["to ONNX Runtime"]
    print_table(["model", *head], rows)


def scaling_table(by_threads):
    base, *more = by_threads
    named = {t: {r["name"]: r for r in results} for t, results in by_threads.items()}
    rows = [
        [name, cell(r["min"])] + [ratio(r["min"], named[t].get(name, {}).get("min")) for t in more]
        for name, r in named[base].items()
    ]
    print_table(["model", f"mcc min, {base} thread", *(f"speed-up with {t}" for t in more)], rows)


def counts(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--mcc", type=pathlib.Path, default="target/release/mcc")
    parser.add_argument("--shared", type=pathlib.Path, default="../shared")
    parser.add_argument("--threads", type=counts, default=[1], help="numbers of threads, such as 1,2")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="time of one runtime with one model, about")
    parser.add_argument("--venv", type=pathlib.Path, default="target/host-bench-venv")
    parser.add_argument("--tract", action="store_true", help="also build and run tract")
    args = parser.parse_args()
    if not args.mcc.exists():
        sys.exit(f"{args.mcc} is missing: cargo build --release, or --mcc PATH")
    models = sorted((args.shared / "models").glob("*.onnx"))
    models = [m for m in models if any(w in m.stem for w in args.models or CORPUS)]
    if not args.models:
        models = [m for m in models if m.stem not in DOUBLES]
    if not models:
        sys.exit(f"no such models in {args.shared / 'models'}")
    python, have = environment(args.venv)
    peers = {p: [python, HERE / "host-bench" / "peer.py", p] for p in have}
    if args.tract and (program := build_tract()):
        peers["tract"] = [program]
    machine = Machine(build_probe())
    cores = sorted(os.sched_getaffinity(0))
    by_threads = {}
    for threads in args.threads:
        os.sched_setaffinity(0, cores[:threads])
        # tract runs on one thread.
        taking_part = {p: c for p, c in peers.items() if p != "tract" or threads == 1}
        results = by_threads[threads] = []
        for model in models:
            note(f"{model.stem}, {threads} thread{'s' * (threads > 1)} ...")
            if (result := measure(args, threads, machine, taking_part, model)) is not None:
                results.append(result)
        print(f"{threads} thread{'s' * (threads > 1)}", end="")
        if (threads, "f32") in machine.peaks:
            f32, int8 = machine.peaks[threads, "f32"], machine.peaks[threads, "int8"]
            print(f", peak {f32 / 1e9:.0f} GFLOP/s in f32, {int8 / 1e9:.0f} GOP/s in int8", end="")
        print(":\n" if results else ": no model runs\n")
        if not results:
            continue
        shown = [p for p in taking_part if any(p in r["peers"] for r in results)]
        times_table(results, shown)
        start_table(results, shown)
    if len(args.threads) > 1:
        scaling_table(by_threads)


if __name__ == "__main__":
    main()
