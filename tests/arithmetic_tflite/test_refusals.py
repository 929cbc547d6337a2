"""Wrong inputs, refused operators and hostile files: one clear line, bounded time and memory."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tflite")
from op_cases import SAME, Case, File, Op, T, _conv, cases

from hwsim.arithmetic.tflite_execute import TfliteSession, run_tflite
from hwsim.arithmetic.tflite_model import load_model
from hwsim.errors import HwsimError

DATA = Path(__file__).parents[1] / "data" / "tflite"
SEMANTICS = ("tflite-reference", "tflite-optimized", "xnnpack", "tflm")


def one_line(error: pytest.ExceptionInfo[HwsimError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    for part in parts:
        assert part in text


def case(name: str) -> Case:
    return next(c for c in cases() if c.name == name)


def test_custom_operator_names_operator_and_layer() -> None:
    with pytest.raises(HwsimError) as error:
        run_tflite(DATA / "coral_mobilenet_v1_0.25_128_quant_edgetpu.tflite", np.zeros((1, 128, 128, 3), np.uint8))
    one_line(error, "edgetpu-custom-op", "operator 0", "making", "coral_mobilenet_v1_0.25_128_quant_edgetpu.tflite")


def test_wrong_inputs() -> None:
    path = DATA / "tflm_hello_world_int8.tflite"
    good = np.zeros((1, 1), np.int8)
    for wrong, part in (
        (np.zeros((1, 2), np.int8), "needs int8 (1, 1), given int8 (1, 2)"),
        (np.zeros((1, 1), np.float32), "given float32"),
        ([good, good], "takes 1 inputs"),
        ({"nothing": good}, "no input 'nothing'"),
        ({}, "is missing"),
    ):
        with pytest.raises(HwsimError) as error:
            run_tflite(path, wrong)
        one_line(error, part)
    name = load_model(path).tensors[load_model(path).inputs[0]].name
    assert np.array_equal(run_tflite(path, {name: good}).outputs[0], run_tflite(path, good).outputs[0])


def test_unknown_names() -> None:
    path, x = DATA / "tflm_hello_world_int8.tflite", np.zeros((1, 1), np.int8)
    with pytest.raises(HwsimError) as error:
        run_tflite(path, x, semantics="tflite-optimised")
    one_line(error, "did you mean tflite-optimized")
    with pytest.raises(HwsimError) as error:
        run_tflite(path, x, outputs=["nowhere"])
    one_line(error, "no tensor 'nowhere'")
    with pytest.raises(HwsimError) as error:
        run_tflite(path.with_name("missing.tflite"), x)
    one_line(error, "no such file")


def test_asked_outputs_leave_out_what_they_do_not_need() -> None:
    path = DATA / "tflm_hello_world_int8.tflite"
    model, x = load_model(path), np.full((1, 1), 40, np.int8)
    hidden = model.operators[0].outputs[0]
    everything = run_tflite(path, x, intermediates=True)
    part = run_tflite(path, x, intermediates=True, outputs=[hidden])
    assert np.array_equal(part.outputs[0], everything.tensors[hidden])
    assert model.outputs[0] not in part.tensors


def test_unsupported_operator_is_named() -> None:
    model = File([T("x", (2, 3), "float32"), T("y", (2, 3), "float32")], [Op("ATAN2", ["x", "x"], ["y"])]).bytes()
    with pytest.raises(HwsimError) as error:
        run_tflite(model, np.zeros((2, 3), np.float32))
    one_line(error, "operator 0 (ATAN2)", "cannot be executed")


def test_float_operators_run_in_fp32() -> None:
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = File(
        [T("x", (1, 3), "float32"), T("w", data=w), T("y", (1, 2), "float32")],
        [Op("FULLY_CONNECTED", ["x", "w", ""], ["y"], ("FullyConnectedOptions", {"FusedActivationFunction": 1}))],
    ).bytes()
    y = run_tflite(model, np.array([[1, -2, 1]], np.float32)).outputs[0]
    assert y.dtype == np.float32 and y.tolist() == [[0.0, 0.0]]


def _conv_model(x: T, w: T, y: T, bias: T | None = None) -> bytes:
    tensors = [x, w, y, *([bias] if bias else [])]
    return File(tensors, [Op("CONV_2D", ["x", "w", *(["b"] if bias else [])], ["y"], _conv(SAME))]).bytes()


def q(
    name: str,
    shape: tuple[int, ...] = (),
    data: np.ndarray | None = None,
    scales: object = (0.1,),
    zeros: object = (0,),
) -> T:
    return T(name, shape, "int8", data, scales, zeros)  # type: ignore[arg-type]


def test_wrong_quantisation_arrays() -> None:
    x, w, y = q("x", (1, 4, 4, 2)), np.ones((3, 1, 1, 2), np.int8), q("y", (1, 4, 4, 3))
    data = np.zeros((1, 4, 4, 2), np.int8)
    for model, part in (
        (_conv_model(x, q("w", data=w, scales=(0.1, 0.2), zeros=(0, 0)), y), "2 scales"),
        (_conv_model(x, q("w", data=w, scales=(), zeros=()), y), "scale"),
        (
            _conv_model(q("x", (1, 4, 4, 2), scales=(), zeros=()), q("w", data=w), y),
            "needs a positive quantisation scale",
        ),
        (_conv_model(x, q("w", data=w), q("y", (1, 4, 4, 3), zeros=(300,))), "zero point 300"),
        (_conv_model(x, q("w", data=w, scales=(0.0,)), y), "not positive"),
        (_conv_model(x, q("w", data=w), q("y", (1, 4, 4, 3), scales=(1e-38,))), "multiplier"),
        (_conv_model(x, q("w", data=w, scales=(0.1,) * 3, zeros=(0, 1, 0)), y), "zero points 0"),
        (_conv_model(x, q("w", data=w), y, T("b", data=np.zeros(5, np.int32))), "bias of 5"),
    ):
        with pytest.raises(HwsimError) as error:
            run_tflite(model, data)
        one_line(error, part)


def test_filters_that_do_not_fit() -> None:
    model = _conv_model(q("x", (1, 4, 4, 3)), q("w", data=np.ones((3, 1, 1, 2), np.int8)), q("y", (1, 4, 4, 3)))
    with pytest.raises(HwsimError) as error:
        run_tflite(model, np.zeros((1, 4, 4, 3), np.int8))
    one_line(error, "does not fit input")


def test_cyclic_graph() -> None:
    tensors = [q("x", (2, 3)), q("a", (2, 3)), q("y", (2, 3))]
    ops = [Op("ADD", ["x", "y"], ["a"], ("AddOptions", {})), Op("ADD", ["a", "x"], ["y"], ("AddOptions", {}))]
    with pytest.raises(HwsimError) as error:
        run_tflite(File(tensors, ops).bytes(), np.zeros((2, 3), np.int8))
    one_line(error, "used before it is computed")


def test_output_that_is_never_made() -> None:
    model = File([q("x", (2,)), q("z", (2,)), q("y", (2,))], [Op("ADD", ["x", "x"], ["z"], ("AddOptions", {}))]).bytes()
    with pytest.raises(HwsimError) as error:
        run_tflite(model, np.zeros(2, np.int8))
    one_line(error, "never computed")


def test_huge_results_are_refused_before_they_are_made() -> None:
    def ints(name: str, values: object) -> T:
        return T(name, data=np.array(values, dtype=np.int32))

    x = q("x", (1, 2, 2, 1))
    grow = [
        ("PAD", ["x", "p"], [ints("p", [[0, 0], [1 << 28, 0], [1 << 28, 0], [0, 0]])], ("PadOptions", {})),
        ("RESIZE_BILINEAR", ["x", "p"], [ints("p", [1 << 20, 1 << 20])], ("ResizeBilinearOptions", {})),
        ("TRANSPOSE_CONV", ["p", "w", "x"], [ints("p", [1, 1 << 20, 1 << 20, 1]), q("w", data=np.ones((1, 1, 1, 1), np.int8))],
         ("TransposeConvOptions", {"Padding": SAME, "StrideW": 1 << 19, "StrideH": 1 << 19})),
    ]  # fmt: skip
    for code, order, consts, options in grow:
        model = File([x, *consts, q("y", (1, 1, 1, 1))], [Op(code, order, ["y"], options)]).bytes()
        start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(HwsimError) as error:
            run_tflite(model, np.zeros((1, 2, 2, 1), np.int8))
        one_line(error, "too large")
        assert time.process_time() - start < 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_truncated_files() -> None:
    data = (DATA / "tflm_trained_lstm_int8.tflite").read_bytes()
    x = np.zeros((1, 28, 28), np.int8)
    for length in [*range(0, 64, 7), *range(64, len(data), len(data) // 60)]:
        with pytest.raises(HwsimError) as error:
            run_tflite(data[:length], x)
        one_line(error)


def _mutations(data: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(broken)))
        kind = int(rng.integers(3))
        if kind == 0:
            broken[at] = int(rng.integers(256))
        elif kind == 1:
            value = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 255, 65536]))
            at -= at % 4
            broken[at : at + 4] = value.to_bytes(4, "little")[: len(broken) - at]
        else:
            broken[at] ^= 1 << int(rng.integers(8))
    return bytes(broken)


def _attack(data: bytes, semantics: str) -> str:
    """Run a damaged file: it works or ends in one line; anything else is a failure."""
    start = time.process_time()
    try:
        session = TfliteSession(data, semantics=semantics)
        shapes = [session.model.tensors[i] for i in session.model.inputs]
        if sum(int(np.prod(np.abs(t.shape), dtype=np.float64)) for t in shapes) > 1 << 22 or any(
            d < 0 for t in shapes for d in t.shape
        ):
            return "large"
        session.run([np.zeros(t.shape, t.dtype) for t in shapes])
        found = "ran"
    except HwsimError as error:
        assert "\n" not in str(error)
        found = "refused"
    assert time.process_time() - start < 20
    return found


@pytest.mark.parametrize(
    "name",
    ["tflm_hello_world_int8", "tflm_trained_lstm_int8", "tflm_keyword_scrambled_8bit", "tflm_micro_speech_quantized"],
)
def test_damaged_models(name: str) -> None:
    data = (DATA / f"{name}.tflite").read_bytes()
    seen = {_attack(_mutations(data, seed), SEMANTICS[seed % 4]) for seed in range(120)}
    assert seen <= {"ran", "refused", "large"} and "refused" in seen


def test_damaged_operators() -> None:
    every = cases()
    seen = [_attack(_mutations(every[(7 * seed) % len(every)].model, seed), SEMANTICS[seed % 4]) for seed in range(500)]
    assert seen.count("refused") > 50 and seen.count("ran") > 50


@pytest.mark.slow
def test_damaged_operators_at_length() -> None:
    every = cases()
    for seed in range(500, 20_000):
        _attack(_mutations(every[(7 * seed) % len(every)].model, seed), SEMANTICS[seed % 4])


def test_parts_and_slices_are_moves() -> None:
    """SPLIT, SPLIT_V and UNPACK have several outputs: compared with plain slices."""
    x = np.arange(24, dtype=np.int8).reshape(2, 12)

    def run(
        code: str, order: list[str], consts: list[T], shapes: list[tuple[int, ...]], options: object
    ) -> list[np.ndarray]:
        outs = [q(f"y{i}", s) for i, s in enumerate(shapes)]
        ops = [Op(code, order, [o.name for o in outs], options)]  # type: ignore[arg-type]
        model = File([q("x", (2, 12)), *consts, *outs], ops, ["x"], [o.name for o in outs]).bytes()
        return list(run_tflite(model, x).outputs)

    axis = T("a", data=np.array(1, dtype=np.int32))
    made = run("SPLIT", ["a", "x"], [axis], [(2, 4)] * 3, ("SplitOptions", {"NumSplits": 3}))
    assert all(np.array_equal(m, x[:, 4 * i : 4 * i + 4]) for i, m in enumerate(made))
    sizes = T("s", data=np.array([5, -1], dtype=np.int32))
    made = run("SPLIT_V", ["x", "s", "a"], [sizes, axis], [(2, 5), (2, 7)], ("SplitVOptions", {"NumSplits": 2}))
    assert np.array_equal(made[0], x[:, :5]) and np.array_equal(made[1], x[:, 5:])
    made = run("UNPACK", ["x"], [], [(12,)] * 2, ("UnpackOptions", {"Axis": 0, "Num": 2}))
    assert np.array_equal(np.stack(made), x)


def test_windows_without_bounds_are_refused() -> None:
    """A pooling window of 65 535 x 65 535 cells, as one flipped word of a file makes it."""
    options = (
        "Pool2DOptions",
        {"Padding": SAME, "StrideW": 1, "StrideH": 1, "FilterWidth": 65535, "FilterHeight": 65535},
    )
    for code in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        model = File([q("x", (1, 4, 4, 2)), q("y", (1, 4, 4, 2))], [Op(code, ["x"], ["y"], options)]).bytes()
        with pytest.raises(HwsimError) as error:
            run_tflite(model, np.zeros((1, 4, 4, 2), np.int8))
        one_line(error, "too large")


def test_hybrid_layers_are_refused() -> None:
    """Float activations with int8 weights quantise on the fly in kernels that are not modelled."""
    x, w, y = (
        T("x", (1, 4, 4, 2), "float32"),
        q("w", data=np.ones((3, 1, 1, 2), np.int8)),
        T("y", (1, 4, 4, 3), "float32"),
    )
    with pytest.raises(HwsimError) as error:
        run_tflite(_conv_model(x, w, y), np.zeros((1, 4, 4, 2), np.float32))
    one_line(error, "no tflite-reference kernel for (fp32, int8) -> fp32")
