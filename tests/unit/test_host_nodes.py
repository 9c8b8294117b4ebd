"""Which nodes on the host compute shapes: followed through the file's graph, on plain graphs, without a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from autopilot.model import shapes_apart
from autopilot.model.host_nodes import shape_nodes
from autopilot.profile import HOST, HOST_SHAPES, MOST_IN_SHAPES, Placement
from autopilot.providers._ort import open_session, session_options
from autopilot.providers._ort_device import DeviceSession
from autopilot.recipe import Deployment

CUDA = "CUDAExecutionProvider"


def node(operator: str, inputs: str, outputs: str, name: str | None = None, **attributes: Any) -> NodeProto:
    """A node called as its first output; ``inputs`` and ``outputs`` with spaces between."""
    return helper.make_node(operator, inputs.split(), outputs.split(), name or outputs.split()[0], **attributes)


def graph_of(
    nodes: Sequence[NodeProto], constants: Mapping[str, Any] | None = None, **inputs: Sequence[int | str]
) -> ModelProto:
    """A model of ``nodes`` with float inputs of the given shapes; what is computed is nobody's concern here."""
    taken = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()]
    given = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    return helper.make_model(helper.make_graph(nodes, "g", taken, [given], stored))


def named(model: ModelProto) -> set[str]:
    """Names of the nodes that compute shapes."""
    return {name for name, _ in shape_nodes(model)}


def apart(model: ModelProto, host: Sequence[tuple[str, str]], folder: Path) -> Mapping[str, int]:
    """Nodes by provider where ``host`` stays on the host, of ten in all."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return shapes_apart(Placement({CUDA: 10 - len(host), HOST: len(host)}, tuple(host)), path).nodes


# What a transformer with free shapes does between its products, and the same operators on its data.
RESHAPING = [
    node("Shape", "x", "sizes"),
    node("Gather", "sizes zero", "n"),
    node("Cast", "n", "as_float", to=1),
    node("Sqrt", "as_float", "scale"),
    node("Mul", "n two", "rows"),
    node("Unsqueeze", "rows zero", "row"),
    node("Concat", "row width", "shape", axis=0),
    node("Reshape", "x shape", "flat"),
    node("Div", "flat scale", "scaled"),
    node("Gather", "table ids", "embedded"),
    node("Concat", "scaled embedded", "both", axis=0),
]
STORED = {"zero": 0, "two": 2, "width": [8], "table": np.zeros((50, 8), np.float32)}
OF_SHAPES = {"sizes", "n", "as_float", "scale", "rows", "row", "shape"}


def test_only_what_descends_from_shapes_computes_shapes() -> None:
    """The same operators work on activations and on weights too: those are work."""
    found = named(graph_of(RESHAPING, STORED, x=["n", "t", 8], ids=["n"]))

    assert found == OF_SHAPES


def test_work_on_the_host_is_no_longer_hidden_by_its_operator(tmp_path: Path) -> None:
    """A Gather, Concat, Cast or Div of an activation that runs there for want of a kernel is a fallback."""
    model = graph_of(RESHAPING, STORED, x=["n", "t", 8], ids=["n"])
    host = [(n.name, n.op_type) for n in RESHAPING if n.name in ("n", "row", "shape", "embedded", "both", "scaled")]

    assert apart(model, host, tmp_path) == {CUDA: 4, HOST: 3, HOST_SHAPES: 3}


def test_followers_of_a_node_without_a_kernel_are_work(tmp_path: Path) -> None:
    """ONNX Runtime drags them to the host after it: they read what lies there."""
    nodes = [node("NonMaxSuppression", "boxes scores", "kept"), node("Gather", "kept zero", "first")]
    model = graph_of(nodes, {"zero": 0}, boxes=["n", 8, 4], scores=["n", 3, 8])

    found = apart(model, [("kept", "NonMaxSuppression"), ("first", "Gather")], tmp_path)

    assert found == {CUDA: 8, HOST: 2}


@pytest.mark.parametrize("elements", [MOST_IN_SHAPES, MOST_IN_SHAPES + 1])
def test_constants_are_small_up_to_onnx_runtimes_bound(elements: int) -> None:
    """A shape beside a whole table isn't what it computes of shapes."""
    nodes = [node("Shape", "x", "s"), node("Add", "s table", "y")]

    assert ("y" in named(graph_of(nodes, {"table": np.zeros(elements, np.int64)}, x=["n"]))) is (elements <= 100)


@pytest.mark.parametrize(
    ("shape", "is_small"), [([], True), ([4], True), ([10, 11], False), (["n"], False), ([1, "t"], False)]
)
def test_inputs_are_small_where_their_shape_says_so(shape: list[int | str], is_small: bool) -> None:
    """A length or a position that is fed; free dimensions may hold a whole batch."""
    nodes = [node("Shape", "x", "s"), node("Add", "s start", "y")]

    assert ("y" in named(graph_of(nodes, x=["n", 8], start=shape))) is is_small


def test_inputs_alone_are_no_shapes() -> None:
    """A model of few numbers that fell back as a whole is a fallback all the same."""
    assert named(graph_of([node("Mul", "x two", "y")], {"two": 2.0}, x=[1, 8])) == set()


@pytest.mark.parametrize("operator", ["Range", "ConstantOfShape", "OneHot", "NonZero", "Resize"])
def test_what_makes_much_of_little_is_work(operator: str) -> None:
    """A mask of all pairs of positions begins with a shape, too; so does what follows from it."""
    inputs = {"Range": "zero n one", "ConstantOfShape": "n"}.get(operator, "n one")
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node(operator, inputs, "much"),
        node("Less", "much n", "y"),
    ]

    assert named(graph_of(nodes, {"zero": 0, "one": 1}, x=["n", 8])) == {"s", "n"}


@pytest.mark.parametrize(
    ("operator", "size", "is_small"),
    [
        ("Expand", [2, 4], True),
        ("Expand", [384, 384], False),
        ("Tile", [3], True),
        ("Tile", [1000], False),
        ("Expand", None, False),
    ],
)
def test_what_is_repeated_stays_small_by_a_constant(operator: str, size: list[int] | None, is_small: bool) -> None:
    """Where the size is computed too it may be anything."""
    nodes = [node("Shape", "x", "s"), node(operator, f"s {'s' if size is None else 'size'}", "y")]

    assert ("y" in named(graph_of(nodes, {"size": size or [0]}, x=["n"]))) is is_small


def test_constant_nodes_count_like_initializers() -> None:
    """Exporters write either; of every form of the attribute."""
    constants = [
        node("Constant", "", "a", value=numpy_helper.from_array(np.array([1, 2]))),
        node("Constant", "", "b", value_int=3),
        node("Constant", "", "c", value_ints=[2, 2]),
        node("Constant", "", "d", value_float=0.5),
        node("Constant", "", "mask", value_float=float("-inf")),
        node("Constant", "", "nans", value_floats=[float("nan"), 1.0]),
        node("Constant", "", "much", value=numpy_helper.from_array(np.zeros(1000, np.int64))),
    ]
    work = [
        node("Shape", "x", "s"),
        *(node("Mul", f"s {name}", f"of_{name}") for name in ("a", "b", "d", "mask", "nans", "much")),
        node("Expand", "s c", "of_c"),
    ]

    expected = {"s", "of_a", "of_b", "of_c", "of_d", "of_mask", "of_nans"}
    assert named(graph_of([*constants, *work], x=["n"])) == expected


def test_branches_see_the_shapes_around_them() -> None:
    """Subgraphs read values of the graph that holds them."""
    inside = helper.make_graph(
        [node("Mul", "s two", "within"), node("Mul", "x two", "data")],
        "branch",
        [],
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, None)],
    )
    nodes = [node("Shape", "x", "s"), node("If", "flag", "y", then_branch=inside, else_branch=inside)]

    assert shape_nodes(graph_of(nodes, {"two": 2}, x=["n"], flag=[])) == {("s", "Shape"): 1, ("within", "Mul"): 2}


def test_nodes_without_names_are_told_by_how_many_there_are(tmp_path: Path) -> None:
    """Two of the file's three Gathers compute shapes: of three on the host, one is work."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Gather", "s one", "t"),
        node("Gather", "x ids", "y"),
    ]
    for one in nodes:
        one.ClearField("name")
    model = graph_of(nodes, {"zero": 0, "one": 1}, x=["n", "t"], ids=["n"])

    assert apart(model, 3 * [("", "Gather")], tmp_path) == {CUDA: 7, HOST: 1, HOST_SHAPES: 2}
    assert apart(model, 2 * [("", "Gather")], tmp_path) == {CUDA: 8, HOST_SHAPES: 2}


def test_own_operators_of_a_runtime_are_work() -> None:
    """Another domain's Add may be anything."""
    other = node("Add", "s s", "y")
    other.domain = "com.example"

    assert named(graph_of([node("Shape", "x", "s"), other], x=["n"])) == {"s"}


def test_names_that_the_runtime_tells_are_those_of_the_file(tmp_path: Path) -> None:
    """A real session, whose nodes all run on the host: its optimizer leaves those that stay their names."""
    nodes = [
        node("Shape", "x", "sizes"),
        node("Gather", "sizes zero", "n"),
        node("Cast", "n", "count", to=1),
        node("Sqrt", "count", "root"),
        node("Div", "x root", "scaled"),
        node("Gather", "table ids", "embedded"),
        node("Add", "scaled embedded", "y"),
    ]
    model = graph_of(nodes, {"zero": 0, "table": np.ones((50, 8), np.float32)}, x=["n", 8])
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]))
    model.opset_import[0].version, model.ir_version = 17, 8
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    opened = open_session(path, session_options(Deployment("cpu"), {}, None, path), [HOST])
    told = DeviceSession(opened.inner).placement()

    assert sorted(told.host) == sorted((n.name, n.op_type) for n in nodes)
    assert shapes_apart(told, path).nodes == {HOST: 3, HOST_SHAPES: 4}


VALUES = st.sampled_from(("x", "s", "small", "table", "a", "b", "c"))


@given(st.lists(st.tuples(st.sampled_from(("Add", "Gather", "Range", "Relu")), VALUES, VALUES), max_size=8))
def test_nothing_that_reads_data_computes_shapes(drawn: list[tuple[str, str, str]]) -> None:
    """In any graph: no chain of nodes leads from an activation or a table to one that is said to compute shapes."""
    made, nodes, tainted = ["x", "s", "small", "table"], [node("Shape", "x", "s")], {"x", "table"}
    for i, (operator, first, second) in enumerate(drawn):
        inputs = [name if name in made else made[-1] for name in (first, second)]
        nodes.append(node(operator, " ".join(inputs), f"v{i}"))
        made.append(f"v{i}")
        if operator in ("Range", "Relu") or tainted & set(inputs):
            tainted.add(f"v{i}")

    found = shape_nodes(graph_of(nodes, {"small": [1], "table": np.zeros(1000)}, x=["n", 8]))

    assert not {name for name, _ in found} & tainted
    assert found == Counter(set(found))
