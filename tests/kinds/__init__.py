"""Models and data of the kinds that users bring, each with its spec and its score worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from tests.kinds import around, numbers, sequences, tables, vision
from tests.kinds.case import Case

CASES: Mapping[str, Callable[[], Case]] = {
    "captcha": vision.captcha,
    "segmentation_maps": partial(vision.segmenter, False),
    "segmentation_flat": partial(vision.segmenter, True),
    "channels_last_uint8_opset11": vision.channels_last,
    "voice_constants": partial(sequences.voice, "constant"),
    "voice_stored": partial(sequences.voice, "stored"),
    "one_row_a_run": sequences.frames,
    "tagger": sequences.tagger,
    "loop": sequences.counter,
    "trees": tables.trees,
    "linear_label": partial(tables.linear, "label"),
    "linear_probabilities": partial(tables.linear, "probabilities"),
    "linear_maps": partial(tables.linear, "maps"),
    "categories": tables.categories,
    "mixed_ranks": tables.mixed_ranks,
    "half": numbers.half,
    "double": numbers.double,
    "one_inside": around.one_inside,
    "state_first_fixed_batch": around.state_first,
    "quantized_qdq": partial(numbers.quantized, "QDQ"),
    "quantized_qoperator": partial(numbers.quantized, "QOperator"),
    "quantized_dynamic": partial(numbers.quantized, "dynamic"),
    "hooks": around.hooked,
    "unlabelled": around.unlabelled,
    "local_function": around.local_function,
}
