"""Running an ONNX model for its inner tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autopilot.techniques._units import Graph

if TYPE_CHECKING:
    from onnx import ModelProto

    from autopilot.contracts import Array

Feed = Mapping[str, "Array"]


def graph_of(model: ModelProto, feed: Feed, threads: int) -> Graph:
    """``model`` with the shapes that its tensors have when it answers to ``feed``."""
    names = [o for n in model.graph.node for o in n.output if o]
    values = Session(model, names, threads).run(feed)
    return Graph(model, {name: tuple(v.shape) for name, v in zip(names, values, strict=True) if hasattr(v, "shape")})


class Session:
    """Runs ``model`` for the tensors called ``names``, and no further."""

    def __init__(self, model: ModelProto, names: Sequence[str], threads: int, optimize: bool = False) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        self.names = list(names)
        shown = part(model, self.names)
        self._runner = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._inputs = {i.name for i in self._runner.get_inputs()}

    def run(self, feed: Feed) -> list[Any]:
        """The tensors, in order."""
        answer: list[Any] = self._runner.run(self.names, {k: v for k, v in feed.items() if k in self._inputs})
        return answer


def part(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """A copy with only the nodes that ``names`` take, which become its outputs."""
    import onnx

    from autopilot.model.graph import graphs, subgraphs

    wanted, kept = set(names), []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
            wanted |= {i for g in subgraphs(node) for inner in graphs(g) for n in inner.node for i in n.input}
    out = onnx.ModelProto(ir_version=model.ir_version)
    out.opset_import.extend(model.opset_import)
    out.graph.name = model.graph.name
    out.graph.node.extend(reversed(kept))
    out.graph.initializer.extend(t for t in model.graph.initializer if t.name in wanted)
    out.graph.input.extend(i for i in model.graph.input if i.name in wanted)
    out.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return out


def rows(session: Session, feed: Feed) -> list[Array]:
    """The tensors, each as a matrix of its last dimension."""
    return [v.reshape(-1, v.shape[-1]) for v in session.run(feed)]
