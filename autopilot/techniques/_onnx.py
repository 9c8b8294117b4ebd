"""What every technique on ONNX files needs: safe loading and saving, clean-up, a numerical gate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.contracts import Array, BuildContext
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.model.files import external_files, parse
from autopilot.model.graph import graphs, nodes, opset, subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

MODEL = "model.onnx"
# Protobuf ends at 2 GiB; tools that add nodes need room below that.
_EXTERNAL_ABOVE_BYTES = 1_500_000_000
# The first IR version whose initializers need not be graph inputs is 4; 8 goes with opset 15.
_MINIMUM_IR = 8
MATMUL_LIKE = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul", "Attention"}
)


def load(path: Path) -> ModelProto:
    """The whole model in memory, external data included.

    Raises:
        ModelError: not a model, or external data that is missing or outside the model's folder.
    """
    from onnx.external_data_helper import load_external_data_for_model

    model = parse(path)
    if external_files(model, path):
        load_external_data_for_model(model, str(path.parent))
    return model


def save(model: ModelProto, target: Path) -> None:
    """Write ``model`` as ``target``; the same model always gives the same bytes.

    Weights go to ``model.onnx.data`` beside it only where one file can't hold them.
    """
    import onnx

    if model.ByteSize() > _EXTERNAL_ABOVE_BYTES:
        location = f"{target.name}.data"
        onnx.save_model(model, str(target), save_as_external_data=True, location=location, size_threshold=1024)
        return
    target.write_bytes(model.SerializeToString(deterministic=True))


def ensure_opset(model: ModelProto, minimum: int) -> ModelProto:
    """``model`` with a standard opset of at least ``minimum``, converted where it is older.

    Raises:
        Unsupported: ONNX's converter has no path for one of its operators.
    """
    from onnx import checker, version_converter

    now = opset(model)
    if now >= minimum:
        return model
    if any(e.domain not in ("", "ai.onnx") for e in model.opset_import) and any(n.domain for n in nodes(model)):
        raise Unsupported(f"opset {now} is below {minimum} and operators outside ONNX can't be converted.")
    try:
        converted = version_converter.convert_version(model, minimum)
        converted.ir_version = max(converted.ir_version, _MINIMUM_IR)
        checker.check_model(converted)
    except Exception as exc:  # noqa: BLE001 - the converter raises RuntimeError, ValueError and its own types
        raise Unsupported(f"opset {now} can't be converted to {minimum} ({first_line(exc)}).") from exc
    return converted


def prepare_for_quantization(model: ModelProto) -> ModelProto:
    """A copy that quantizers understand, computing the same.

    Functions inlined; ``value_info`` dropped (stale shapes make ``quantize_dynamic`` raise "Inferred
    shape and existing shape differ" on torch 2.13 exports); initializers no longer graph inputs;
    Constant nodes lifted into initializers, in subgraphs too; every node with a name of its own.
    """
    import onnx
    from onnx import inliner

    out = inliner.inline_local_functions(model) if model.functions else onnx.ModelProto.FromString(
        model.SerializeToString()
    )
    out.ir_version = max(out.ir_version, _MINIMUM_IR)
    for graph in graphs(out.graph):
        del graph.value_info[:]
        _lift_constants(graph)
        stored = {t.name for t in graph.initializer}
        kept = [i for i in graph.input if i.name not in stored]
        if len(kept) != len(graph.input):
            del graph.input[:]
            graph.input.extend(kept)
    _name_nodes(out)
    return out


def _lift_constants(graph: GraphProto) -> None:
    outputs = {o.name for o in graph.output}
    kept: list[NodeProto] = []
    for node in graph.node:
        value = constant_value(node) if node.output and node.output[0] not in outputs else None
        if value is None:
            kept.append(node)
            continue
        value.name = node.output[0]
        graph.initializer.append(value)
    if len(kept) != len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)


def constant_value(node: NodeProto) -> TensorProto | None:
    """A copy of what a Constant node gives; None for other nodes, sparse and string constants."""
    import onnx
    from onnx import numpy_helper

    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        copy = onnx.TensorProto()
        copy.CopyFrom(attribute.t)
        return copy
    plain: dict[str, Any] = {
        "value_float": lambda: np.float32(attribute.f),
        "value_int": lambda: np.int64(attribute.i),
        "value_floats": lambda: np.array(attribute.floats, np.float32),
        "value_ints": lambda: np.array(attribute.ints, np.int64),
    }
    make = plain.get(attribute.name)
    return numpy_helper.from_array(np.asarray(make())) if make else None


def _name_nodes(model: ModelProto) -> None:
    """Quantizers select nodes by name: give the nameless and the doubled ones a stable name."""
    seen: set[str] = set()
    for i, node in enumerate(nodes(model)):
        if not node.name or node.name in seen:
            name = f"{node.name or node.op_type}_n{i}"
            while name in seen:
                name += "_"
            node.name = name
        seen.add(node.name)


def initializers(graph: GraphProto) -> dict[str, TensorProto]:
    """Stored tensors visible in ``graph`` itself, by name (not those of outer graphs)."""
    return {t.name: t for t in graph.initializer}


def matmul_like_nodes(model: ModelProto) -> list[NodeProto]:
    """Nodes of the main graph that multiply by a stored weight, in graph order.

    Those are what quantizers can turn into integer kernels; a MatMul of two activations is not
    among them. Constant nodes count as stored only after ``prepare_for_quantization``.
    """
    stored = {t.name for t in model.graph.initializer}
    return [n for n in model.graph.node if n.op_type in MATMUL_LIKE and any(i in stored for i in n.input[1:2])]


def outer_names(graph: GraphProto) -> Iterator[str]:
    """Names that the subgraphs of ``graph`` take from outside themselves, with repeats."""
    for node in graph.node:
        for inner in subgraphs(node):
            own = {t.name for t in inner.initializer} | {i.name for i in inner.input}
            own |= {o for n in inner.node for o in n.output}
            for name in (*(i for n in inner.node for i in n.input), *(o.name for o in inner.output)):
                if name and name not in own:
                    yield name
            yield from (name for name in outer_names(inner) if name not in own)


def first_line(exc: BaseException) -> str:
    """The first non-empty line of a message, without the long tails some libraries add."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:300]


def check_same(
    source: Path, built: Path, context: BuildContext, *, rtol: float = 1e-3, atol: float = 1e-4, samples: int = 16
) -> None:
    """Run both files on real inputs and refuse ``built`` where its outputs differ.

    The tolerance of an output is ``atol + rtol * max|expected|``: float reorderings of a fusion
    stay far below it, a wrong fusion far above. Integer and boolean outputs must be equal.

    Raises:
        VariantFailed: WRONG_NUMERICS, with the output's name and the largest difference; or
            BUILD_ERROR where the built file doesn't load or run.
    """
    if context.calibration is None:
        raise Unsupported("real inputs are needed to check that the rewritten model gives the same answers.")
    reference = session(source, context.threads)
    try:
        candidate = session(built, context.threads)
    except Exception as exc:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class
        raise VariantFailed(Failure.BUILD_ERROR, f"the rewritten model doesn't load ({first_line(exc)}).") from exc
    names = [o.name for o in reference.get_outputs()]
    if names != [o.name for o in candidate.get_outputs()]:
        raise VariantFailed(Failure.WRONG_NUMERICS, "the rewritten model has other outputs than its source.")
    for feed in feeds(reference, context, samples):
        expected = reference.run(None, feed)
        try:
            got = candidate.run(None, feed_for(candidate, feed))
        except Exception as exc:  # noqa: BLE001 - see above
            raise VariantFailed(Failure.BUILD_ERROR, f"the rewritten model doesn't run ({first_line(exc)}).") from exc
        for name, a, b in zip(names, expected, got, strict=True):
            difference(name, a, b, rtol, atol)


def difference(name: str, expected: Array, got: Array, rtol: float, atol: float) -> None:
    """Raise WRONG_NUMERICS unless two outputs agree; both any shape and dtype."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        what = f"{expected.dtype}{list(expected.shape)} became {got.dtype}{list(got.shape)}"
        raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r}: {what}.")
    if expected.dtype.kind not in "fc":
        if not np.array_equal(expected, got):
            raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r} differs in {np.sum(expected != got)} values.")
        return
    finite = np.isfinite(expected)
    if not np.array_equal(np.isnan(expected), np.isnan(got)) or not np.array_equal(finite, np.isfinite(got)):
        raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r} is not finite where its source is.")
    if not finite.any():
        return
    a, b = expected[finite].astype(np.float64), got[finite].astype(np.float64)
    worst, allowed = float(np.abs(a - b).max()), atol + rtol * float(np.abs(a).max())
    if worst > allowed:
        what = f"differs from its source's by {worst:.3g} where {allowed:.3g} is allowed"
        raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r} {what}.")


def session(path: Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU provider, quiet, its threads asleep between runs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(reference: Any, context: BuildContext, samples: int) -> Iterator[dict[str, Array]]:
    """Real requests that hold ``samples`` samples in all, in the batch size the model is made for."""
    split = context.calibration
    if split is None:
        return
    count = min(samples, split.n)
    if not split.batched:
        for i in range(count):
            yield feed_for(reference, split.feed([i]))
        return
    size = fixed_batch(reference) or count
    for start in range(0, max(count - size, 0) + 1, size):
        yield feed_for(reference, split.feed(slice(start, start + size)))


def feed_for(runner: Any, feed: Any) -> dict[str, Array]:
    """Only the inputs that ``runner`` still has: a rewrite may have dropped an unused one."""
    wanted = {i.name for i in runner.get_inputs()}
    return {name: value for name, value in feed.items() if name in wanted}


def fixed_batch(runner: Any) -> int | None:
    """The first dimension of the first input of a session when it is a number."""
    shapes = [i.shape for i in runner.get_inputs() if i.shape]
    return int(shapes[0][0]) if shapes and isinstance(shapes[0][0], int) else None
