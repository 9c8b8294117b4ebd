"""What every provider must keep to, whoever wrote it. Those that can't run here are held to the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autopilot import plugins
from autopilot.build.cache import complete
from autopilot.contracts import Provider, TellsKernels, facts_of
from autopilot.domain import Choice
from autopilot.errors import Unsupported, VariantFailed
from autopilot.recipe import DEPLOYMENT_KEYS, Deployment, params_of
from autopilot.target import Target

PROVIDERS = sorted(plugins.providers().items())
TARGET = Target.detect()
# A first compilation by g++ takes longer than all the quick tests together.
SLOW = {"torch_compile"}
USABLE = [
    pytest.param(name, provider, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name, provider in PROVIDERS
    if provider.usable(TARGET) is None
]

each_provider = pytest.mark.parametrize(("name", "provider"), PROVIDERS, ids=[name for name, _ in PROVIDERS])
each_usable = pytest.mark.parametrize(("name", "provider"), USABLE)

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``x (n, 4) -> product (n, 3), relu (n, 3)``."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Relu", ["product"], ["relu"])]
    shapes = {"x": ["n", 4], "product": ["n", 3], "relu": ["n", 3]}
    x, product, relu = (helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in shapes.items())
    graph = helper.make_graph(nodes, "g", [x], [product, relu], [numpy_helper.from_array(WEIGHTS, "w")])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@each_provider
def test_provider_is_called_like_its_module(name: str, provider: Provider) -> None:
    """File name = plug-in name = key in deployments."""
    assert provider.name == name
    assert isinstance(provider.thread_choices, bool)


@each_provider
def test_provider_says_why_it_is_not_usable(name: str, provider: Provider) -> None:
    """None or a sentence."""
    reason = provider.usable(TARGET)

    assert reason is None or len(reason) > 10


@each_provider
def test_parameters_contain_their_defaults(name: str, provider: Provider) -> None:
    """A space that names none must sample something valid."""
    for domain in provider.parameters.values():
        assert domain.contains(domain.default)


@each_provider
def test_deployment_comes_back_as_it_was_with_every_option(name: str, provider: Provider) -> None:
    """No option is called like a part of the deployment, whose place it would take in ids, records and bundles."""
    options = params_of({parameter: domain.default for parameter, domain in provider.parameters.items()})
    deployment = Deployment(name, 3, 5, options, 2.5, 2)

    assert Deployment.from_json(deployment.to_json()) == deployment
    assert len(deployment.to_json()) == len(DEPLOYMENT_KEYS) + len(options)


def test_the_cpu_is_always_usable() -> None:
    """The baseline needs one provider that is always there."""
    assert "cpu" in [param.id for param in USABLE]


@each_usable
def test_session_takes_and_gives_host_arrays(name: str, provider: Provider, model: Path) -> None:
    """Outputs in the order of their names, right values, numpy arrays."""
    x = np.array([[1, -1, 2, 0], [0, 0, -1, 0]], dtype=np.float32)
    session = provider.open(model, Deployment(name))
    product, relu = session.run({"x": x})

    assert session.output_names == ("product", "relu")
    assert isinstance(product, np.ndarray)
    np.testing.assert_allclose(product, x @ WEIGHTS, rtol=1e-2)
    np.testing.assert_allclose(relu, np.maximum(x @ WEIGHTS, 0), rtol=1e-2)


@each_usable
def test_placement_counts_the_nodes(name: str, provider: Provider, model: Path) -> None:
    """The runtime's own word on what runs where."""
    assert sum(provider.open(model, Deployment(name)).placement().nodes.values()) >= 1


@each_usable
def test_every_choice_opens_a_working_session(name: str, provider: Provider, model: Path) -> None:
    """No value of a declared choice may fail, one parameter changed at a time, with one thread and with two."""
    x = np.ones((2, 4), dtype=np.float32)
    for parameter, domain in provider.parameters.items():
        values = domain.values if isinstance(domain, Choice) else (domain.default,)
        # Which devices there are is the machine's.
        for value in facts_of(provider).sensible(TARGET)["device"] if parameter == "device" else values:
            for threads in (1, 2):
                deployment = Deployment(name, threads=threads, options=params_of({parameter: value}))
                product = provider.open(model, deployment).run({"x": x})[0]
                np.testing.assert_allclose(product, x @ WEIGHTS, rtol=1e-2)


@each_usable
def test_optimized_model_is_written_when_asked(name: str, provider: Provider, model: Path, tmp_path: Path) -> None:
    """The audit reads the graph that really runs, or the kernels; or the provider says why neither is told."""
    optimized = tmp_path / "optimized.onnx"
    session = provider.open(model, Deployment(name), optimized_model=optimized)
    session.run({"x": np.ones((2, 4), dtype=np.float32)})

    if facts_of(provider).unaudited:
        assert not optimized.exists()
    elif isinstance(session, TellsKernels):
        kernels = session.kernels()
        assert kernels is not None
        assert [(k.product, k.integer) for k in kernels if k.product] == [(True, False)]
    else:
        assert len(onnx.load(optimized).graph.node) >= 1


@each_usable
def test_kernels_of_a_session_that_does_not_count_them_are_unknown(name: str, provider: Provider, model: Path) -> None:
    """Counting costs time: nothing that is timed may do it unasked."""
    session = provider.open(model, Deployment(name))
    session.run({"x": np.ones((2, 4), dtype=np.float32)})

    assert not isinstance(session, TellsKernels) or session.kernels() is None


@each_provider
def test_facts_name_options_that_exist(name: str, provider: Provider) -> None:
    """What changes answers and what is worth trying are parameters, with values that are declared."""
    facts = facts_of(provider)

    assert set(facts.numerics or ()) <= set(provider.parameters)
    for option, values in facts.sensible(TARGET).items():
        assert values
        assert all(provider.parameters[option].contains(value) for value in values)
    assert len(facts.engine_key(TARGET)) == 64


@each_provider
def test_rivals_are_what_the_provider_and_the_techniques_can_do(name: str, provider: Provider) -> None:
    """Options and steps that exist, names of their own; what is exact is a value that is declared."""
    facts = facts_of(provider)

    for option, value in (*facts.exact, *(o for rival in facts.rivals for o in rival.options)):
        assert provider.parameters[option].contains(value)
    for step in (step for rival in facts.rivals for step in rival.steps):
        complete(plugins.techniques()[step.technique], step)
    assert len({rival.name for rival in facts.rivals}) == len(facts.rivals)


@each_usable
def test_operators_are_timed_when_asked(name: str, provider: Provider, model: Path, tmp_path: Path) -> None:
    """Every row names operator, provider and type; warm-up is left out; nothing stays behind on the disk."""
    x = np.ones((2, 4), dtype=np.float32)
    folder = tmp_path / "profile"
    folder.mkdir()
    try:
        session = provider.open(model, Deployment(name), profile_to=folder / "p")
    except Unsupported as refused:
        pytest.skip(f"{name} has no profiler and says so: {refused.message}")
    for _ in range(5):
        session.run({"x": x})
    rows = session.operator_costs(3)

    nodes = sum(session.placement().nodes.values())
    counted = sum(row.count for row in rows)
    # Other runtimes than ONNX Runtime know nodes that take no time: layouts that fit, constants.
    assert 0 < counted <= nodes
    if any(place.endswith("ExecutionProvider") for place in session.placement().nodes):
        assert counted == pytest.approx(nodes)
    assert {row.dtype for row in rows} == {"float32"}
    assert {row.provider for row in rows} == set(session.placement().nodes)
    assert list(folder.iterdir()) == []


@each_usable
def test_operators_of_a_session_that_keeps_no_profile_are_refused(name: str, provider: Provider, model: Path) -> None:
    """No table is made up."""
    session = provider.open(model, Deployment(name))

    with pytest.raises(Unsupported):
        session.operator_costs(1)


@each_usable
def test_unknown_option_is_refused(name: str, provider: Provider, model: Path) -> None:
    """A misspelt option must not be ignored in silence."""
    with pytest.raises(Unsupported, match="turbo"):
        provider.open(model, Deployment(name, options=(("turbo", True),)))


@each_usable
def test_a_value_outside_the_choice_is_refused(name: str, provider: Provider, model: Path) -> None:
    """Nor may a wrong value fall back to a default."""
    choices = [k for k, domain in provider.parameters.items() if isinstance(domain, Choice)]
    for parameter in choices:
        with pytest.raises(Unsupported, match=parameter):
            provider.open(model, Deployment(name, options=((parameter, "nonsense"),)))


@each_usable
def test_a_file_that_is_no_model_fails_as_ours(name: str, provider: Provider, tmp_path: Path) -> None:
    """The runtime's own exception classes stay inside the provider."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")

    with pytest.raises(VariantFailed) as caught:
        provider.open(broken, Deployment(name))
    assert caught.value.failure == "build_error"


@each_usable
def test_wrong_inputs_fail_as_ours(name: str, provider: Provider, model: Path) -> None:
    """A wrong shape, a missing input and a wrong type."""
    session = provider.open(model, Deployment(name))
    for feed in ({"x": np.ones((2, 5), np.float32)}, {}, {"x": np.ones((2, 4), np.int64)}):
        with pytest.raises(VariantFailed):
            session.run(feed)


@each_usable
def test_a_node_without_a_kernel_is_unsupported(name: str, provider: Provider, tmp_path: Path) -> None:
    """A known limit of the runtime, not a crash: bfloat16 products have no kernel on the CPU provider."""
    if name != "cpu":
        pytest.skip("which kernels are missing differs by provider")
    kind = TensorProto.BFLOAT16
    a, b, y = (helper.make_tensor_value_info(k, kind, [2, 2]) for k in "aby")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "g", [a, b], [y])
    path = tmp_path / "bf16.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

    with pytest.raises(Unsupported):
        provider.open(path, Deployment(name))
