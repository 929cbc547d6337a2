"""LiteRT as an oracle, when it is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# Models TFLM runs, with the number of random inputs recorded (its kernels take no uint8 convolutions).
TFLM_MODELS = {
    "mlperf_tiny_ad01_int8": 3, "mlperf_tiny_kws_ref_model": 4, "mlperf_tiny_pretrainedResnet_quant": 2,
    "mlperf_tiny_str_ww_ref_model": 4, "tflm_hello_world_int8": 4, "tflm_micro_speech_quantized": 4, "tflm_person_detect": 3,
    "tflm_keyword_scrambled_8bit": 8, "tflm_trained_lstm_int8": 8, "coral_keras_lstm_mnist_ptq": 8,
    "tflm_xtensa_mobilenet_v2_quantized": 1,
}  # fmt: skip


def interpreter(model: bytes, semantics: str) -> Any:
    """A LiteRT interpreter running the kernels a semantics names; keeps every tensor where it can."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kinds = {
        "tflite-reference": OpResolverType.BUILTIN_REF,
        "tflite-optimized": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "xnnpack": OpResolverType.BUILTIN,
    }
    made = Interpreter(
        model_content=model,
        experimental_op_resolver_type=kinds[semantics],
        num_threads=1,
        experimental_preserve_all_tensors=semantics != "xnnpack",  # the delegate keeps none
    )
    made.allocate_tensors()
    return made


def litert(model: bytes, inputs: Sequence[np.ndarray], semantics: str) -> list[np.ndarray]:
    """The outputs of one run."""
    run = interpreter(model, semantics)
    for detail, value in zip(run.get_input_details(), inputs, strict=True):
        run.set_tensor(detail["index"], value)
    run.invoke()
    return [run.get_tensor(d["index"]).copy() for d in run.get_output_details()]


def inputs(shape: Sequence[int], dtype: Any, count: int = 1) -> Iterator[np.ndarray]:
    """Random and structured inputs: extremes, zeros, a ramp, alternating extremes."""
    rng, info = np.random.default_rng(7), np.iinfo(dtype)
    size = int(np.prod(shape))
    for _ in range(count):
        yield rng.integers(info.min, info.max + 1, shape).astype(dtype)
    for value in (info.min, info.max, 0):
        yield np.full(shape, value, dtype)
    yield np.linspace(info.min, info.max, size).astype(dtype).reshape(shape)
    yield np.where(np.arange(size) % 2, info.max, info.min).astype(dtype).reshape(shape)
