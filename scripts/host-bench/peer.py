"""One runtime with one model, for host-bench.py: peer.py RUNTIME MODEL.onnx THREADS [INPUT=SIZE,SIZE,...]...

Prints a line of JSON once it has run: the microseconds that the session took to create, and the memory that it took. Then
answers each number with the microseconds of so many inferences, as a JSON list.
"""

import json
import pathlib
import sys
import time

import numpy


def most_memory():
    """The most bytes that this process ever held; None where the system does not tell."""
    try:
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass
    return None


def values(names, shape, dtype):
    """Random elements; the shape is the one given for one of the names, else the model's with 1 for what it leaves open."""
    rng = numpy.random.default_rng(1)
    shape = next((given[n] for n in names if n in given), shape)
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in shape]
    if numpy.issubdtype(dtype, numpy.floating):
        return rng.random(shape, dtype=numpy.float32).astype(dtype)
    return rng.integers(0, 100, shape).astype(dtype)


def onnxruntime_session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnxruntime_run(session):
    types = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
    feed = {i.name: values([i.name], i.shape, numpy.dtype(types[i.type])) for i in session.get_inputs()}
    return lambda: session.run(None, feed)


def openvino_session(path, threads):
    config = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    model = core.read_model(path)
    if any(port.partial_shape.is_dynamic for port in model.inputs):
        model.reshape({port.any_name: given.get(port.any_name, [1] * len(port.partial_shape)) for port in model.inputs})
    return core.compile_model(model, "CPU", config)


def openvino_run(compiled):
    request = compiled.create_infer_request()
    for i, port in enumerate(compiled.inputs):
        request.set_input_tensor(i, openvino.Tensor(values([], list(port.shape), port.element_type.to_dtype())))
    return request.infer


def litert_session(path, threads):
    interpreter = Interpreter(str(path.with_suffix(".tflite")), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def litert_run(interpreter):
    for i in interpreter.get_input_details():
        interpreter.set_tensor(i["index"], values([], i["shape"].tolist(), i["dtype"]))
    return interpreter.invoke


peer, path, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
given = {name: [int(d) for d in dims.split(",")] for name, _, dims in (a.rpartition("=") for a in sys.argv[4:])}
if peer == "ONNX Runtime":
    import onnxruntime

    create, runner = onnxruntime_session, onnxruntime_run
elif peer == "OpenVINO":
    import openvino

    openvino.Core().get_versions("CPU")  # loads the plugin, which is no part of a session
    create, runner = openvino_session, openvino_run
else:
    from ai_edge_litert.interpreter import Interpreter

    create, runner = litert_session, litert_run

before = most_memory()
start = time.perf_counter()
session = create(path, threads)
load = (time.perf_counter() - start) * 1e6
run = runner(session)
run()
memory = before and most_memory() - before
for _ in range(10):
    run()
print(json.dumps({"load_us": load, "session_peak_bytes": memory}), flush=True)
for line in sys.stdin:
    times = []
    for _ in range(int(line)):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e6)
    print(json.dumps(times), flush=True)
