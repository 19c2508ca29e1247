#!/usr/bin/env python3
"""Compares mcc on this machine with ONNX Runtime, OpenVINO and LiteRT, one thread each.

    scripts/host-bench.py [--mcc target/release/mcc] [--shared ../shared] [--rounds 10] [MODEL...]

MODEL is a part of a name in the shared folder's models; without any, the MLPerf Tiny models. The runtimes take turns, a
round of inferences each, on random inputs; minimum and median of all inferences count. Prints a table in Markdown; times
are microseconds, ratios are mcc's minimum by that of the fastest runtime (less than 1: mcc is faster).

Peers are installed in an environment of their own, target/host-bench-venv; one that cannot be installed is left out.
LiteRT runs NAME.tflite where that lies beside NAME.onnx. OpenVINO is kept to f32.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import venv

PEERS = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino", "LiteRT": "ai-edge-litert"}

# Runs in a process of its own, one a peer and model: prints "ready", then for each line "N" the times of N inferences.
WORKER = r"""
import json, pathlib, sys, time
import numpy
peer, path, rng = sys.argv[1], pathlib.Path(sys.argv[2]), numpy.random.default_rng(1)
def values(shape, dtype):
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in shape]
    if numpy.issubdtype(dtype, numpy.floating):
        return rng.random(shape, dtype=numpy.float32).astype(dtype)
    return rng.integers(0, 100, shape).astype(dtype)
if peer == "ONNX Runtime":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
    feed = {i.name: values(i.shape, numpy.dtype(types[i.type])) for i in session.get_inputs()}
    run = lambda: session.run(None, feed)
elif peer == "OpenVINO":
    import openvino
    config = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", config)
    request = compiled.create_infer_request()
    feed = {}
    for i, port in enumerate(compiled.inputs):
        shape = [d.get_length() if d.is_static else 1 for d in port.partial_shape]
        feed[i] = openvino.Tensor(values(shape, port.element_type.to_dtype()))
    for i, tensor in feed.items():
        request.set_input_tensor(i, tensor)
    run = request.infer
else:
    from ai_edge_litert.interpreter import Interpreter
    interpreter = Interpreter(str(path.with_suffix(".tflite")), num_threads=1)
    interpreter.allocate_tensors()
    for i in interpreter.get_input_details():
        interpreter.set_tensor(i["index"], values(i["shape"].tolist(), i["dtype"]))
    run = interpreter.invoke
for _ in range(10):
    run()
print("ready", flush=True)
for line in sys.stdin:
    times = []
    for _ in range(int(line)):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e6)
    print(json.dumps(times), flush=True)
"""


def environment(folder):
    """The Python of an environment with the peers, and the peers that it has."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    have = {}
    for peer, package in PEERS.items():
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "numpy", package]
        if subprocess.run(pip, stdout=sys.stderr).returncode == 0:
            have[peer] = package
        else:
            print(f"{peer} is left out: {package} cannot be installed", file=sys.stderr)
    return python, list(have)


class Peer:
    """A runtime with one model."""

    def __init__(self, python, peer, model):
        command = [python, "-c", WORKER, peer, model]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.times = []
        self.alive = self.process.stdout.readline().strip() == "ready"

    def turn(self, runs):
        print(runs, file=self.process.stdin, flush=True)
        self.times += json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def bench(mcc, model, runs):
    """Minimum and median of some inferences of mcc; None where it does not run the model."""
    command = [mcc, "bench", model, "--runs", str(runs), "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        return None
    return json.loads(result.stdout)


def measure(args, python, peers, model):
    """A row of the table, and the ratio."""
    first = bench(args.mcc, model, 3)
    workers = {p: Peer(python, p, model) for p in peers if p != "LiteRT" or model.with_suffix(".tflite").exists()}
    workers = {p: w for p, w in workers.items() if w.alive}
    rounds = []
    if first is not None:
        runs = max(3, min(2000, int(args.seconds * 1e6 / args.rounds / first["min_us"])))
        for _ in range(args.rounds):
            rounds.append(bench(args.mcc, model, runs))
            for worker in workers.values():
                worker.turn(runs)
    for worker in workers.values():
        worker.close()
    if not rounds:
        return [model.stem, "not run", *[""] * (len(peers) + 2)], None
    least = min(r["min_us"] for r in rounds)
    cells = [model.stem, f"{least:.1f} / {statistics.median(r['median_us'] for r in rounds):.1f}"]
    cells += [
        f"{min(workers[p].times):.1f} / {statistics.median(workers[p].times):.1f}" if p in workers else "" for p in peers
    ]
    fastest = min(workers, key=lambda p: min(workers[p].times), default=None)
    if fastest is None:
        return [*cells, "", ""], None
    ratio = least / min(workers[fastest].times)
    return [*cells, f"{ratio:.2f}", fastest], ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--mcc", type=pathlib.Path, default="target/release/mcc")
    parser.add_argument("--shared", type=pathlib.Path, default="../shared")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="time of one runtime with one model, about")
    parser.add_argument("--venv", type=pathlib.Path, default="target/host-bench-venv")
    args = parser.parse_args()
    wanted = args.models or ["mlperf_ic_", "mlperf_kws_float", "mlperf_kws_int8", "mlperf_vww_", "mlperf_ad_"]
    models = sorted((args.shared / "models").glob("*.onnx"))
    models = [m for m in models if any(w in m.stem for w in wanted)]
    python, peers = environment(args.venv)
    table = [["model", "mcc min / median", *(f"{p} min / median" for p in peers), "ratio", "to"]]
    for model in models:
        print(f"{model.stem} ...", file=sys.stderr)
        table.append(measure(args, python, peers, model)[0])
    print(f"| {' | '.join(table[0])} |\n|{'---|' * len(table[0])}")
    for row in table[1:]:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
