"""Memory that is bound on a device, and captured graphs: on the host's memory and on sessions that keep their rules."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from autopilot.errors import Unsupported, VariantFailed
from autopilot.providers._ort import OrtSession, open_session, session_options
from autopilot.providers._ort_bound import MOST_GRAPHS, BoundSession, GraphSession, OneGraphSession
from autopilot.recipe import Deployment
from tests.fake_gpu.fake_sessions import sessions
from tests.integration.bench_support import dense, samples


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``x (n, 16) -> y (n, 16)``."""
    return dense(tmp_path / "model.onnx")


@pytest.fixture
def plain(model: Path) -> OrtSession:
    """What every session has to answer."""
    return open_session(model, session_options(Deployment("cpu"), {}, None, model), ["CPUExecutionProvider"])


@pytest.fixture
def bound(plain: OrtSession) -> BoundSession:
    """A bound session on the host's memory, where binding works as on a device."""
    return BoundSession(plain.inner, "cpu", graphs=True)


def pretended(model: Path, provider: str, **options: str) -> Any:
    """A session that captures graphs by the rules of ``provider``, on the host's memory."""
    kind = sessions(ort.InferenceSession)
    kind.memory_name = "Cpu"
    return kind(str(model), ort.SessionOptions(), providers=[(provider, options)])


def agree(session: OrtSession, plain: OrtSession, n: int, seed: int = 0) -> None:
    x = samples(n, 16, seed=seed)
    np.testing.assert_allclose(session.run({"x": x})[0], plain.run({"x": x})[0], rtol=1e-5)


def in_threads(work: Callable[[int], None], count: int = 4) -> list[BaseException]:
    """What ``work`` raised in ``count`` threads at once."""
    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as exc:  # handed to the test
            failed.append(exc)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_bound_runs_answer_what_plain_runs_do(bound: BoundSession) -> None:
    """The first run of a shape is plain, later ones are bound; every answer is an array of its own."""
    feeds = [samples(3, 16, seed=i) for i in range(4)]
    plain = [bound.inner.run(None, {"x": x})[0] for x in feeds]
    found = [bound.run({"x": x})[0] for x in feeds]

    for one, other in zip(plain, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bound_memory_is_kept_for_a_few_sets_of_shapes(bound: BoundSession, plain: OrtSession) -> None:
    """Each captured graph holds memory; shapes beyond that still get right answers."""
    for n in range(1, MOST_GRAPHS + 4):
        agree(bound, plain, n)
        agree(bound, plain, n, seed=n)

    assert len(bound._bound) == MOST_GRAPHS


def test_bound_session_refuses_wrong_inputs_as_ours(bound: BoundSession) -> None:
    """A wrong shape, a missing input, a wrong type."""
    for feed in ({"x": samples(2, 5)}, {}, {"x": np.ones((2, 16), np.int64)}):
        with pytest.raises(VariantFailed):
            bound.run(feed)


def test_what_the_runtime_keeps_on_the_host_is_bound_there(plain: OrtSession) -> None:
    """As on a device whose runtime reads the input and leaves the output on the host: this one does with all."""
    session = BoundSession(plain.inner, "cuda")
    x = samples(2, 16)
    kept, before = session.run({"x": x})[0], x.copy()
    answers = [session.run({"x": samples(2, 16, seed=i)})[0] for i in range(3)]

    np.testing.assert_array_equal(x, before)
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, plain.run({"x": samples(2, 16, seed=i)})[0])
    np.testing.assert_array_equal(kept, plain.run({"x": x})[0])


def test_graph_of_a_model_that_reads_an_input_on_the_host_is_refused(plain: OrtSession) -> None:
    """The captured kernels would go on with the values of the capture."""
    with pytest.raises(Unsupported, match="reads its input x on the host"):
        GraphSession(plain.inner, "cuda")


@pytest.mark.parametrize("graphs", [False, True])
def test_bound_session_answers_several_threads_rightly(bound: BoundSession, plain: OrtSession, graphs: bool) -> None:
    """Quality is scored by as many threads as there are cores, through the one session; its memory is one."""
    session = bound if graphs else BoundSession(plain.inner, "cpu")

    def work(number: int) -> None:
        for i in range(30):
            agree(session, plain, 3, seed=100 * number + i)

    assert in_threads(work) == []


def test_graphs_follow_the_thread_that_captured_them(model: Path, plain: OrtSession) -> None:
    """ONNX Runtime keeps a graph for a thread: one for whoever came first, one for all others together."""
    inner = pretended(model, "CUDAExecutionProvider", enable_cuda_graph="1")
    session = GraphSession(inner, "cpu")

    def work(number: int) -> None:
        for i in range(10):
            agree(session, plain, 1 + i % 2, seed=100 * number + i)

    work(0)

    assert in_threads(work) == []
    assert in_threads(work) == []
    assert len(inner._captured) == 4  # two shapes, here and in the session's own thread


def test_runs_beyond_the_most_graphs_capture_nothing(model: Path, plain: OrtSession) -> None:
    """They aren't bound, so that a graph of theirs would read memory that is gone."""
    inner = pretended(model, "CUDAExecutionProvider", enable_cuda_graph="1")
    session = GraphSession(inner, "cpu")
    for n in (*range(1, MOST_GRAPHS + 3), *range(1, MOST_GRAPHS + 3)):
        agree(session, plain, n, seed=n)

    assert len(inner._captured) == MOST_GRAPHS


def test_one_graph_serves_one_set_of_shapes(model: Path, plain: OrtSession) -> None:
    """Once TensorRT's graph is captured, its session replays it whatever is asked: others ask another session."""
    inner = pretended(model, "TensorrtExecutionProvider", trt_cuda_graph_enable="1")
    opened: list[OrtSession] = []

    def other() -> OrtSession:
        opened.append(BoundSession(pretended(model, "TensorrtExecutionProvider"), "cpu"))
        return opened[-1]

    session = OneGraphSession(BoundSession(inner, "cpu", graphs=True), other)
    with pytest.raises(VariantFailed):
        session.run({"x": samples(2, 5)})
    for n in (4, 4, 4):
        agree(session, plain, n, seed=n)
    assert opened == []
    for n in (2, 4, 2, 1, 4):
        agree(session, plain, n, seed=n)

    assert list(inner._captured) == [0]
    assert len(opened) == 1
    assert in_threads(lambda number: agree(session, plain, 4, seed=number)) == []
