"""CUDA and TensorRT where there is neither: reasons, options, shape profiles, bound memory (the host's own)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot import plugins
from autopilot.contracts import facts_of
from autopilot.errors import Failure, VariantFailed
from autopilot.providers import _cuda_libraries, cuda, tensorrt, tensorrt_rtx
from autopilot.recipe import Deployment, Recipe, Variant, params_of
from autopilot.search.prepare import SCORING_BATCH
from autopilot.target import Target
from tests import models
from tests.integration.bench_support import dense

PLAIN = replace(Target.detect(), gpus=(), versions={"onnxruntime": "1.32.0"})
ON_GPU = replace(PLAIN, gpus=("NVIDIA H100",))
# Of the names that `strings` finds in libonnxruntime_providers_cuda.so and _tensorrt.so of the wheel onnxruntime-gpu
# 1.31.1 (CUDA 13), those that are used here or might be.
KNOWN_TO_CUDA = {
    *("device_id", "cudnn_conv_algo_search", "do_copy_in_default_stream", "prefer_nhwc", "use_tf32"),
    *("enable_cuda_graph", "fuse_conv_bias"),
}
KNOWN_TO_TENSORRT = {
    *("device_id", "trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_builder_optimization_level"),
    *("trt_cuda_graph_enable", "trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix"),
    *("trt_timing_cache_enable", "trt_timing_cache_path", "trt_force_timing_cache", "trt_max_workspace_size"),
    *("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes", "trt_layer_norm_fp32_fallback"),
}
READY = replace(ON_GPU, versions={"onnxruntime-gpu": "1.31.1"})
CUDA = ("libcuda.so.1", *_cuda_libraries.needed(13))


@pytest.mark.parametrize(
    ("target", "libraries", "said", "command"),
    [
        (replace(PLAIN, versions={"onnxruntime": "1", "onnxruntime-gpu": "1"}), (), "both installed", "pip uninstall"),
        (PLAIN, (), "no NVIDIA device", "nvidia-smi"),
        (READY, (), "libcuda.so.1 is not found", "docker run --gpus all"),
        (
            ON_GPU,
            ("libcuda.so.1",),
            "onnxruntime 1.32.0 has the CPU provider alone",
            "pip uninstall -y onnxruntime && pip install",
        ),
        (
            READY,
            ("libcuda.so.1",),
            "libcublas.so.12 is here, of another CUDA",
            "pip install 'onnxruntime-gpu[cuda,cudnn]'",
        ),
        (READY, ("libcuda.so.1",), "libcublasLt.so.13, libcublas.so.13", "take onnxruntime-gpu 1.26.0"),
        (READY, CUDA, "cuDNN 9", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        (READY, (*CUDA, "libcudnn.so.9"), "libnvinfer.so.10", "export LD_LIBRARY_PATH="),
    ],
)
def test_first_missing_part_is_named_with_its_command(
    target: Target, libraries: tuple[str, ...], said: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user mends one thing after the other."""
    monkeypatch.setattr(_cuda_libraries, "is_here", lambda name: name in libraries)
    monkeypatch.setattr(_cuda_libraries, "others", lambda name: ["libcublas.so.12"] if "cublas" in name else [])
    monkeypatch.setattr(_cuda_libraries, "built_for", lambda: 13)

    reason = tensorrt.PROVIDER.usable(target) or ""

    assert said in reason
    assert command in reason
    assert (cuda.PROVIDER.usable(target) == reason) is ("libcudnn.so.9" not in libraries)


def test_nothing_is_missing_where_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as can be seen without loading it; opening a session checks the rest."""
    monkeypatch.setattr(_cuda_libraries, "is_here", lambda name: True)

    assert cuda.PROVIDER.usable(READY) is None
    assert tensorrt.PROVIDER.usable(READY) is None


def test_opening_without_the_provider_is_refused_and_never_runs_on_the_cpu(tmp_path: Path) -> None:
    """ONNX Runtime would, with a line in its log."""
    for name in ("cuda", "tensorrt", "tensorrt_rtx"):
        provider = plugins.providers()[name]
        if provider.usable(Target.detect()) is None:
            pytest.skip(f"{name} is usable here")
        with pytest.raises(VariantFailed) as caught:
            provider.open(dense(tmp_path / "model.onnx"), Deployment(name))
        assert caught.value.failure == "provider_missing"


def test_cuda_options_are_onnx_runtimes() -> None:
    """Names as in its documentation, all values text."""
    defaults: dict[str, Any] = {name: domain.default for name, domain in cuda.PARAMETERS.items()}

    assert cuda.provider_options(defaults) == {
        "device_id": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "do_copy_in_default_stream": "1",
        "prefer_nhwc": "0",
        "use_tf32": "1",
        "enable_cuda_graph": "0",
    }
    assert cuda.provider_options(defaults | {"io": "graph"})["enable_cuda_graph"] == "1"
    assert cuda.provider_options(defaults | {"tf32": False})["use_tf32"] == "0"


def test_tensorrt_keeps_engines_apart_and_timings_together() -> None:
    """Timings serve every engine of a device; an engine serves one model in one setting."""
    defaults: dict[str, Any] = {name: domain.default for name, domain in tensorrt.PARAMETERS.items()}
    found = tensorrt.provider_options(defaults, Path("/c"), "abc", quantized=True)

    assert found["trt_engine_cache_path"] == str(Path("/c") / "abc")
    assert found["trt_timing_cache_path"] == str(Path("/c") / "timings")
    assert (found["trt_fp16_enable"], found["trt_bf16_enable"], found["trt_int8_enable"]) == ("1", "0", "1")


def test_shape_profiles_cover_the_batches_of_the_deployment() -> None:
    """An engine for one shape would be built again in the middle of serving."""
    found = tensorrt.shape_profiles([("image", (-1, 3, 32)), ("scale", (1,))], 8)

    assert found == {
        "trt_profile_min_shapes": "image:1x3x32,scale:1",
        "trt_profile_opt_shapes": "image:8x3x32,scale:1",
        "trt_profile_max_shapes": "image:8x3x32,scale:1",
    }
    # Quality is scored with four samples a run, whatever the deployment's batch.
    assert tensorrt.shape_profiles([("image", (-1, 3))], 1)["trt_profile_max_shapes"] == "image:4x3"
    assert tensorrt.shape_profiles([("tokens", (-1, -1))], 8) == {}
    assert tensorrt.shape_profiles([("image", (4, 3))], 4) == {}


def test_inputs_are_read_without_an_engine(tmp_path: Path) -> None:
    """What the profiles are made of."""
    assert tensorrt.seen_in(dense(tmp_path / "model.onnx", width=16)) == ([("x", [-1, 16])], False)


def test_int8_is_asked_for_where_the_model_holds_qdq(tmp_path: Path) -> None:
    """TensorRT refuses QDQ without its int8 flag, and wants a calibration table for that flag without QDQ."""
    path = models.write(models.qdq(), tmp_path / "model.onnx")
    defaults: dict[str, Any] = {name: domain.default for name, domain in tensorrt.PARAMETERS.items()}

    assert tensorrt.seen_in(path)[1]
    assert tensorrt.provider_options(defaults, Path("/c"), "abc", quantized=False)["trt_int8_enable"] == "0"


def test_every_option_is_one_that_the_shipped_libraries_know() -> None:
    """A name that ONNX Runtime doesn't know ends a session's start, on a machine that few have."""
    on_cuda = cuda.provider_options({name: d.default for name, d in cuda.PARAMETERS.items()})
    on_tensorrt = tensorrt.provider_options(
        {name: d.default for name, d in tensorrt.PARAMETERS.items()}, Path("/c"), "abc", quantized=True
    ) | tensorrt.shape_profiles([("x", (-1, 3))], 8)

    assert set(on_cuda) <= KNOWN_TO_CUDA
    assert set(on_tensorrt) <= KNOWN_TO_TENSORRT


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (PLAIN, "no NVIDIA device"),
        (READY, "pip uninstall -y onnxruntime-gpu"),
        (ON_GPU, "pip install onnxruntime-ep-nv-tensorrt-rtx"),
    ],
)
def test_first_missing_part_of_the_rtx_plugin_is_named(target: Target, said: str) -> None:
    """It goes with plain onnxruntime, where CUDA's provider goes with the other package."""
    if tensorrt_rtx.PROVIDER.usable(ON_GPU) is None:
        pytest.skip("the plug-in is installed here")

    assert said in (tensorrt_rtx.PROVIDER.usable(target) or "")


def test_rtx_options_are_the_plugins() -> None:
    """Names as in the header of its wheel; profiles under its own prefix."""
    profiles = tensorrt.shape_profiles([("x", (-1, 3))], 8)

    assert tensorrt_rtx.provider_options({"cuda_graph": True}, Path("/c"), profiles) == {
        "enable_cuda_graph": "1",
        "nv_runtime_cache_path": str(Path("/c")),
        "nv_profile_min_shapes": "x:1x3",
        "nv_profile_opt_shapes": "x:8x3",
        "nv_profile_max_shapes": "x:8x3",
    }


def test_engine_takes_as_many_samples_as_are_scored_together() -> None:
    """More would be outside of its profile, and refused."""
    assert tensorrt.SCORED_TOGETHER >= SCORING_BATCH


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "tensorrt_rtx", "torch_compile_cuda"])
def test_half_precision_is_what_there_is_to_beat_on_a_device(name: str) -> None:
    """Nobody serves plain float32 there, and who does nothing at all has TensorFloat-32."""
    facts = facts_of(plugins.providers()[name])
    given = Variant(Recipe(), Deployment(name, options=facts.exact))
    tf32, half = facts.rivals

    assert len({given.id, tf32.beside(given).id, half.beside(given).id}) == 3
    assert (tf32.name, half.name) in (("tf32", "float16"), ("tf32", "fp16"))


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "tensorrt_rtx", "torch_compile_cuda"])
def test_model_as_given_is_the_same_float32_on_every_nvidia_provider(name: str) -> None:
    """What losses are told against has all bits of a float32, whatever a runtime's or a space's first values are."""
    provider = plugins.providers()[name]
    exact, domains = dict(facts_of(provider).exact), provider.parameters
    precision = domains.get("precision")

    assert exact["tf32"] is False
    assert exact.get("precision") == (None if precision is None else "fp32" if name == "tensorrt" else "float32")
    assert set(exact) <= set(facts_of(provider).numerics or ())
    assert all(domains[option].contains(value) for option, value in exact.items())


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "tensorrt_rtx", "torch_compile_cuda"])
def test_rivals_are_run_as_a_search_runs_them(name: str) -> None:
    """With the runtime's own TensorFloat-32: without, what stays in float32 would slow the one to beat."""
    facts = facts_of(plugins.providers()[name])

    assert [dict(rival.options)["tf32"] for rival in facts.rivals] == [True, True]


def test_tensorrt_without_tf32_is_told_before_its_libraries_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They read the variable once; CUDA, which takes the rest of the graph, gets its own option."""
    seen: list[Any] = []

    def load() -> None:
        seen.append(os.environ.get("NVIDIA_TF32_OVERRIDE"))

    def refuse(artifact: Path, options: Any, providers: Any) -> Any:
        seen.extend(dict(own)["use_tf32"] for name, own in providers if name == cuda.EXECUTION_PROVIDER)
        raise VariantFailed(Failure.PROVIDER_MISSING, "there is no device.")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("AUTOPILOT_CACHE_DIR")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")  # so that it is put back
    monkeypatch.setattr(tensorrt, "_load_libraries", load)
    monkeypatch.setattr(tensorrt, "open_on_device", refuse)
    for tf32 in (True, False):
        deployment = Deployment("tensorrt", options=params_of({"tf32": tf32}))
        with pytest.raises(VariantFailed, match="no device"):
            tensorrt.PROVIDER.open(dense(tmp_path / "model.onnx"), deployment)

    assert seen == ["", "1", "0", "0"]


def test_timings_with_and_without_tf32_are_kept_apart() -> None:
    """A kernel that was fast with it must not be taken without."""
    defaults: dict[str, Any] = {name: domain.default for name, domain in tensorrt.PARAMETERS.items()}

    assert tensorrt.timings(Path("/c"), defaults) != tensorrt.timings(Path("/c"), defaults | {"tf32": False})


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "tensorrt_rtx", "torch_compile_cuda"])
def test_facts_tell_what_is_measured_on_a_device(name: str) -> None:
    """Memory and energy come from the device's counters too, and an engine is one device's."""
    facts = facts_of(plugins.providers()[name])

    assert "gpu_memory_mb" in facts.memory_axes
    assert "nvml" in facts.energy_counters
    assert facts.engine_key(READY) != facts.engine_key(replace(READY, gpus=("another",)))
    assert facts.engine_key(READY) != facts.engine_key(replace(READY, gpu_driver="580.95.05"))
