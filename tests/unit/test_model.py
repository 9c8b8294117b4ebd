"""What ``inspect`` reads out of a model file, and which files it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autopilot.errors import ModelError
from autopilot.model import copy_model, inspect
from tests import models


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model with its weights in ``weights.bin`` beside it."""
    return models.write(models.wide(), tmp_path / "m" / "model.onnx", external=True)


def relocate(path: Path, **entries: str) -> None:
    """Change the external-data entries of every tensor in a model file."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        kept = {e.key: e.value for e in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in kept.items():
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def test_inspect_describes_inputs_outputs_and_size(tmp_path: Path) -> None:
    """Names, numpy types, symbolic and fixed dimensions, opset and parameter count are the model's own."""
    info = inspect(models.write(models.encoder(), tmp_path / "e.onnx"))

    assert [(i.name, i.dtype, i.shape) for i in info.inputs] == [
        ("input_ids", "int64", ("N", "S")),
        ("attention_mask", "int64", ("N", "S")),
    ]
    assert [(o.name, o.dtype, o.shape) for o in info.outputs] == [("logits", "float32", ("N", 3))]
    assert info.opset == 17
    assert info.parameters == sum(int(np.prod(t.dims)) for t in models.encoder().graph.initializer)
    assert not info.quantized
    assert info.batch is None


def test_inspect_leaves_out_initializers_listed_as_inputs(tmp_path: Path) -> None:
    """Weights that are graph inputs too are nothing a caller has to give."""
    info = inspect(models.write(models.weights_as_inputs(), tmp_path / "w.onnx"))

    assert [i.name for i in info.inputs] == ["x"]


def test_inspect_counts_nodes_of_subgraphs(tmp_path: Path) -> None:
    """The MatMuls inside both branches of an If count, and control flow is reported."""
    info = inspect(models.write(models.detector(), tmp_path / "d.onnx"))

    assert info.op_counts["MatMul"] == 5
    assert info.has_control_flow
    assert [i.shape for i in info.inputs] == [("N", 256), (1, "N", 16), ()]


@pytest.mark.parametrize(("batch", "expected"), [(2, 2), ("N", None)])
def test_batch_is_the_fixed_first_dimension(tmp_path: Path, batch: int | str, expected: int | None) -> None:
    """A number is a fixed batch, a symbol is none."""
    info = inspect(models.write(models.cnn(batch=batch), tmp_path / "c.onnx"))

    assert info.batch == expected


def test_qdq_model_counts_as_quantized(tmp_path: Path) -> None:
    """QuantizeLinear and DequantizeLinear make a model quantized, not dynamically so."""
    info = inspect(models.write(models.qdq(), tmp_path / "q.onnx"))

    assert info.quantized
    assert not info.dynamic_quantized


def test_dynamic_quantization_is_recognised(tmp_path: Path) -> None:
    """DynamicQuantizeLinear tells that activations are quantized at run time."""
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [models.value("x", TensorProto.FLOAT, [4])],
        [models.value("q", TensorProto.UINT8, [4])],
    )
    path = models.write(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "d.onnx")

    info = inspect(path)

    assert info.dynamic_quantized


def test_external_files_are_listed_but_not_read(external: Path) -> None:
    """External data belong to the model's files; inspecting does not need to read them."""
    os.truncate(external.parent / "weights.bin", 1 << 36)  # 64 GiB of nothing: reading it would not end well

    info = inspect(external)

    assert [f.name for f in info.files] == ["model.onnx", "weights.bin"]


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """The message names the path."""
    with pytest.raises(ModelError, match=r"nothing\.onnx: there is no such model file"):
        inspect(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("content", [b"", b"hello, I am not a model\n" * 40, b"PK\x03\x04" + bytes(100), b"{}"])
def test_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty files, text, archives: one paragraph, no decoder traceback."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=r"model\.onnx: (is empty|is not an ONNX model)"):
        inspect(path)


def test_folder_is_refused(tmp_path: Path) -> None:
    """A folder gets a message of its own."""
    with pytest.raises(ModelError, match="is a folder"):
        inspect(tmp_path)


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1])
def test_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    """However much of the end is missing, the model is refused."""
    path = models.write(models.wide(), tmp_path / "model.onnx")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(ModelError, match=r"model\.onnx"):
        inspect(path)


def test_initializer_without_its_data_is_refused(tmp_path: Path) -> None:
    """A tensor whose bytes are missing is a damaged model, though protobuf parses it."""
    model = models.wide()
    model.graph.initializer[0].ClearField("raw_data")
    path = models.write(model, tmp_path / "model.onnx")

    with pytest.raises(ModelError, match=r"damaged: tensor 'w1' holds 0 bytes"):
        inspect(path)


def test_opset_below_eleven_is_refused(tmp_path: Path) -> None:
    """The message says which opset the model has and which are supported."""
    model = models.arithmetic()
    model.opset_import[0].version = 9
    path = models.write(model, tmp_path / "model.onnx")

    with pytest.raises(ModelError, match="operator set is 9; 11 and up"):
        inspect(path)


def test_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    """Sequences can't be compared or scored."""
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["s"])]
    graph = helper.make_graph(nodes, "g", [models.value("x", TensorProto.FLOAT, [4])], [sequence])
    path = models.write(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "s.onnx")

    with pytest.raises(ModelError, match="'s' is a sequence, not a tensor"):
        inspect(path)


def test_missing_external_data_is_refused(external: Path) -> None:
    """A weights file that wasn't copied along is named."""
    (external.parent / "weights.bin").unlink()

    with pytest.raises(ModelError, match=r"missing: there is no file 'weights\.bin' beside it"):
        inspect(external)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "sub/../../weights.bin", "C:\\weights.bin"])
def test_external_data_outside_the_folder_is_refused(external: Path, location: str) -> None:
    """Absolute and upward locations are refused even where such a file exists."""
    (external.parent / "weights.bin").rename(external.parent.parent / "weights.bin")
    relocate(external, location=location)

    with pytest.raises(ModelError, match="outside the model's folder"):
        inspect(external)


def test_external_data_behind_a_leaving_symlink_is_refused(external: Path) -> None:
    """A link inside the folder that points out of it is outside."""
    outside = external.parent.parent / "secret.bin"
    (external.parent / "weights.bin").rename(outside)
    os.symlink(outside, external.parent / "weights.bin")

    with pytest.raises(ModelError, match=r"a link, 'weights\.bin', that leaves"):
        inspect(external)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "99999999"}, "should span bytes"),
        ({"length": "99999999"}, "should span bytes"),
        ({"length": "8"}, "its shape and type need"),
        ({"offset": "-5"}, "should span bytes"),
        ({"offset": "abc"}, "no number"),
    ],
)
def test_external_data_beyond_the_files_end_is_refused(external: Path, entries: dict[str, str], message: str) -> None:
    """Offset and length must lie in the file and cover the tensor."""
    relocate(external, **entries)

    with pytest.raises(ModelError, match=message):
        inspect(external)


def test_external_data_inside_an_attribute_are_checked_too(tmp_path: Path) -> None:
    """A Constant node's tensor may be external as well."""
    model = models.constant_weights()
    tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())

    with pytest.raises(ModelError, match="outside the model's folder"):
        inspect(path)


def test_copy_keeps_external_data_beside_the_model(external: Path, tmp_path: Path) -> None:
    """The copy is a whole model: it loads and has the same weights."""
    copied = copy_model(inspect(external).files, tmp_path / "copy")

    weights = [numpy_helper.to_array(t) for t in onnx.load(copied).graph.initializer]
    expected = [numpy_helper.to_array(t) for t in onnx.load(external).graph.initializer]
    assert all(np.array_equal(a, b) for a, b in zip(weights, expected, strict=True))
