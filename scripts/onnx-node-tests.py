"""Writes the node tests of the `onnx` package as files: FOLDER/NAME/model.onnx and FOLDER/NAME/test_data_set_0/*.pb.

Tests whose inputs or outputs are no plain tensors (sequences, optionals, maps) are left out.
"""

import pathlib
import shutil
import sys

import numpy
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests


def tensor(value, name):
    if isinstance(value, TensorProto):
        return value
    return numpy_helper.from_array(numpy.asarray(value), name)


def main():
    finished = pathlib.Path(sys.argv[1])
    folder = finished.with_name(finished.name + ".part")
    shutil.rmtree(folder, ignore_errors=True)
    for case in load_model_tests(kind="node"):
        graph = case.model.graph
        if not all(p.type.HasField("tensor_type") for p in (*graph.input, *graph.output)):
            continue
        data = folder / case.name / "test_data_set_0"
        data.mkdir(parents=True, exist_ok=True)
        (folder / case.name / "model.onnx").write_bytes(case.model.SerializeToString())
        inputs, outputs = case.data_sets[0]
        for kind, values, ports in (("input", inputs, graph.input), ("output", outputs, graph.output)):
            for i, (value, port) in enumerate(zip(values, ports)):
                (data / f"{kind}_{i}.pb").write_bytes(tensor(value, port.name).SerializeToString())
    folder.rename(finished)


main()
