"""The evaluating child: a range of samples through the model, outputs to files. Not timed.

Requests: ``evaluate`` (outputs of a range of samples), ``compare`` (are answers in runs of other sizes the
same?) and ``probe`` (do several samples at once give what single ones give?). The parent's side is ``evaluation``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.bench.childside import child_main
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    from autopilot.bench.outputs import OutputFile
    from autopilot.contracts import Array, Session
    from autopilot.data import Split

# Samples that are run at other sizes too: enough to tell garbage, few beside a validation split.
COMPARED = 32
# A batch that gives other answers than single samples differs by much more: rounding stays below.
_RTOL = 1e-3


def groups(start: int, stop: int, batch: int) -> Iterator[tuple[list[int], int]]:
    """Indices in groups of ``batch``, the last one filled up with its last sample; and how many are real."""
    for first in range(start, stop, batch):
        indices = list(range(first, min(first + batch, stop)))
        yield indices + [indices[-1]] * (batch - len(indices)), len(indices)


def named_outputs(session: Session, split: Split, indices: list[int]) -> dict[str, Array]:
    """The model's outputs by name for one group, after the postprocess hook where there is one."""
    return postprocessed(session, split, session.run(split.feed(indices)))


def postprocessed(session: Session, split: Split, outputs: list[Array]) -> dict[str, Array]:
    """Outputs by name, after the postprocess hook where there is one."""
    named = dict(zip(session.output_names, outputs, strict=True))
    if split.postprocess is None:
        return named
    from autopilot.data.hooks import apply_postprocess

    return apply_postprocess(split.postprocess, split.postprocess_reference or "", named)


def in_parallel(
    session: Session, split: Split, work: Iterator[tuple[list[int], int]], workers: int
) -> Iterator[tuple[dict[str, Array], int]]:
    """Outputs by name and number of real samples of each group, in order.

    Runs go on in ``workers`` threads of the one session, each run on one core: that uses the cores
    better than many threads in one run, whatever the batch size. Hooks see one group at a time.
    """
    from collections import deque
    from concurrent.futures import Future, ThreadPoolExecutor

    waiting: deque[tuple[Future[list[Array]], int]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for indices, real in work:
            waiting.append((pool.submit(session.run, split.feed(indices)), real))
            # Few groups ahead: enough to keep the workers busy, not so many that their inputs fill memory.
            while len(waiting) > 2 * workers:
                done, count = waiting.popleft()
                yield postprocessed(session, split, done.result()), count
        for done, count in waiting:
            yield postprocessed(session, split, done.result()), count


def by_sample(value: Array, batch: int, batched: bool) -> Array | None:
    """``value`` with the sample dimension first, or None when it doesn't follow the batch."""
    if batched and value.ndim > 0 and value.shape[0] == batch:
        return value
    return value[None] if batch == 1 else None


def split_outputs(named: Mapping[str, Array], batch: int, batched: bool) -> tuple[dict[str, Array], dict[str, str]]:
    """Outputs with the sample dimension first, and why the others (carried states, text) are left out.

    Raises:
        VariantFailed: all are left out.
    """
    kept: dict[str, Array] = {}
    left_out: dict[str, str] = {}
    for name, value in named.items():
        samples = by_sample(value, batch, batched)
        if samples is None:
            left_out[name] = f"has shape {list(value.shape)} after a run of {batch} samples"
        elif value.dtype.kind in "OSU":
            left_out[name] = "is text"
        else:
            kept[name] = samples
    if not kept and all(reason == "is text" for reason in left_out.values()):
        raise VariantFailed(
            Failure.UNSUPPORTED,
            f"every output is text, which no metric scores: {', '.join(left_out)}.",
            "Turn one into numbers in a postprocess hook.",
        )
    if not kept:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in named.items())
        raise VariantFailed(
            Failure.UNSUPPORTED,
            f"no output has {batch} samples after a run of {batch}: {shapes}.",
            "Score this model with a batch size of 1.",
        )
    return kept, left_out


def compare_sizes(
    session: Session, split: Split, batch: int, sizes: Iterable[int], workers: int, *, scored: str | None = None
) -> None:
    """Check that the first samples get the same answers in runs of each of ``sizes`` as in runs of ``batch``.

    ``scored``: the output that counts; "" is the first, None is not known.

    Raises:
        VariantFailed: WRONG_NUMERICS, naming both sizes.
    """
    from autopilot.bench.agreement import check_agreement
    from autopilot.bench.answers import Answers

    first, samples = "", min(COMPARED, split.n)

    def runs(size: int) -> Iterator[dict[str, Array]]:
        nonlocal first
        for named, real in in_parallel(session, split, groups(0, samples, size), workers):
            first = next(iter(named))
            yield {name: v[:real] for name, v in split_outputs(named, size, split.batched)[0].items()}

    wanted: Answers | None = None
    for size in sizes:
        wanted = wanted or Answers.of(runs(batch))
        found = Answers.of(runs(size))
        check_agreement(*found.beside(wanted, samples), (size, batch), first if scored == "" else scored)


def compare(request: Mapping[str, Any]) -> dict[str, Any]:
    """``compare_sizes`` of what is asked, for a score that is there already."""
    from autopilot.data import Split

    split = Split.load(Path(request["split"]))
    session, workers = _opened(request, None)
    compare_sizes(session, split, int(request["batch"]), request["sizes"], workers, scored=request["scored"])
    return {}


def _opened(request: Mapping[str, Any], optimized: Path | None) -> tuple[Session, int]:
    """The model, loaded, and how many of its runs go on side by side."""
    from autopilot.bench.server import find_provider
    from autopilot.contracts import AnswersInTurn

    deployment = Deployment.from_json(request["deployment"])
    session = find_provider(deployment.provider).open(Path(request["artifact"]), deployment, optimized_model=optimized)
    workers = max(1, len(request["cores"]))
    if isinstance(session, AnswersInTurn):
        session.answer_side_by_side(workers)
    return session, workers


def evaluate(request: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of samples ``start..stop`` in ``folder``/{index}.npy, samples first; ``sizes`` are compared before."""
    from autopilot.bench.outputs import OutputFile
    from autopilot.contracts import TellsKernels
    from autopilot.data import Split

    split = Split.load(Path(request["split"]))
    folder, batch, n = Path(request["folder"]), int(request["batch"]), request["stop"] - request["start"]
    if not split.batched and batch != 1:
        raise DataError("batched: false makes a request one sample, so the batch size is 1.", f"It was {batch}.")
    optimized = folder / "optimized.onnx" if request["optimized"] else None
    session, workers = _opened(request, optimized)
    compare_sizes(session, split, batch, request["sizes"], workers, scored=request.get("scored"))
    files: dict[str, OutputFile] = {}
    all_names: list[str] = []
    reasons: dict[str, str] = {}
    work = groups(request["start"], request["stop"], batch)
    for named, real in in_parallel(session, split, work, workers):
        kept, left_out = split_outputs(named, batch, split.batched)
        if not files:
            all_names, reasons = list(named), left_out
            files = {name: OutputFile(name, folder / f"{i}.npy", n) for i, name in enumerate(kept)}
        for name, file in files.items():
            if name not in kept:
                raise VariantFailed(Failure.UNSUPPORTED, f"the output {name!r} stopped following the batch dimension.")
            file.add(kept[name][:real])
    finish(files, batched=split.batched)
    kernels = session.kernels() if isinstance(session, TellsKernels) else None
    return {
        "kernels": None if kernels is None else [kernel.to_json() for kernel in kernels],
        "output_names": list(files),
        "all_names": all_names,
        "left_out": reasons,
        "placement": dict(session.placement().nodes),
        "optimized": str(optimized) if optimized is not None and optimized.exists() else None,
        "non_finite": any(f.non_finite for f in files.values()),
        "padded": [name for name, f in files.items() if f.padded],
    }


def finish(files: Mapping[str, OutputFile], *, batched: bool) -> None:
    """Write the files; a batch dimension of 1 that a one-sample model kept is taken off."""
    for file in files.values():
        file.finish(drop_first=not batched and file.first_is_one)


def probe(request: Mapping[str, Any]) -> dict[str, Any]:
    """Whether runs of several samples equal single runs; False when they fail."""
    import numpy as np

    from autopilot.bench.server import find_provider
    from autopilot.data import Split

    split = Split.load(Path(request["split"]))
    if not split.batched:
        return {"batching": False, "why": "batched: false makes a request one sample"}
    deployment = Deployment.from_json(request["deployment"])
    session = find_provider(deployment.provider).open(Path(request["artifact"]), deployment)
    count = min(int(request["samples"]), split.n)
    single = [named_outputs(session, split, [i]) for i in range(count)]
    try:
        together = named_outputs(session, split, list(range(count)))
    except (VariantFailed, DataError) as error:
        return {"batching": False, "why": str(error)}
    followed = 0
    for name, value in together.items():
        if value.ndim == 0 or value.shape[0] != count:
            continue
        followed += 1
        alone = np.concatenate([one[name] for one in single]) if single[0][name].ndim else None
        if alone is None or alone.shape != value.shape or not same(alone, value):
            return {"batching": False, "why": f"the output {name!r} of {count} samples differs from single runs"}
    return {"batching": followed > 0, "why": "" if followed else "no output follows the batch dimension"}


def same(a: Array, b: Array) -> bool:
    """Equal up to rounding, on the scale of the larger values; ``a`` and ``b`` of one shape."""
    import numpy as np

    if a.dtype.kind not in "fc":
        return bool(np.array_equal(a, b))
    scale = float(np.nanmax(np.abs(a), initial=0.0))
    return bool(np.allclose(a, b, rtol=_RTOL, atol=_RTOL * scale, equal_nan=True))


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Do what ``request["do"]`` says."""
    if request["cores"]:
        from autopilot.bench.cores import pin

        pin(request["cores"])
    return {"evaluate": evaluate, "compare": compare, "probe": probe}[request["do"]](request)


if __name__ == "__main__":
    child_main(handle)
