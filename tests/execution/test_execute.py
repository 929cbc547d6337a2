"""`execute`, `verify` and the numerics report: whose values, against which oracle, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hwsim
from hwsim.errors import HwsimError
from hwsim.execution import execute, numerics, oracle, verify
from hwsim.execution.choose import Assignment, machine
from hwsim.execution.metrics import statistics, ulp, ulps_apart
from hwsim.network.builder import Builder
from hwsim.network.graph import Network


def _small() -> Network:
    net = Builder("small")
    x = net.conv(net.input("x", (2, 3, 8, 8)), 8, (3, 3), 1, 1, fused="bn+relu", name="first")
    y = net.conv(x, 8, (3, 3), 1, 1, g=8, fused="bn+relu6", name="depthwise")
    z = net.op("add", net.conv(y, 8, (1, 1), fused="bn", name="point"), x, name="residual")
    flat = net.op("reshape", net.op("reduce_mean", z, axes=(2, 3)), out=(2, 8))
    return net.build(net.linear(flat, 5, name="head"))


MACHINES = [("tpu-v2", "bf16"), ("tpu-v3", "fp32x3"), ("tpu-v4", "bf16"), ("v100", "fp16"), ("a100", "tf32"), ("h100", "fp8"),
            ("b200", "bf16"), ("rtx-4060", "e5m2")]  # fmt: skip


@pytest.mark.parametrize(("target", "precision"), MACHINES)
def test_products_equal_the_definition(target: str, precision: str) -> None:
    found = verify(_small(), target, precision=precision, samples=6)
    assert found.is_bit_exact, found.text()
    assert found.compared >= 4 * 6
    assert set(found.error) == set(found.fp32_error)
    error, plain = next(iter(found.error.values())), next(iter(found.fp32_error.values()))
    assert 10 < error.snr_db < plain.snr_db


def test_a_wrong_bit_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from hwsim import arithmetic

    real = arithmetic.gemm

    def wrong(*args: object, **kwargs: object) -> np.ndarray:
        return np.asarray(real(*args, **kwargs)) ^ np.uint32(1)  # type: ignore[arg-type]

    monkeypatch.setattr(arithmetic, "gemm", wrong)
    found = verify(_small(), "a100", precision="fp16")
    assert found.different == found.compared
    assert found.first_layer == "first"
    assert found.max_ulps == 1
    assert "first in first, by up to 1 ulps" in found.text()


def test_chains_of_another_length_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle's own order: a unit that joins four products differs from one that rounds every product."""
    net = hwsim.matmul(8, 16, 300)
    from hwsim.arithmetic import mxu

    real = mxu.matrix_unit
    assert verify(net, "tpu-v3", precision="bf16").is_bit_exact
    monkeypatch.setattr(mxu, "matrix_unit", lambda profile: unit._replace(group=4) if (unit := real(profile)) else None)
    sums = execute(net, "tpu-v3", precision={"*": "fp32"}).outputs["1"]
    monkeypatch.undo()
    assert np.any(sums != execute(net, "tpu-v3", precision={"*": "fp32"}).outputs["1"])


def test_rational_sums_round_once() -> None:
    a, b = np.array([1.0, 2.0**-24, 2.0**-60]), np.ones(3)
    assert oracle._chain(a, b, 3) == np.nextafter(np.float32(1), np.float32(2))  # just above a tie, in float64 a tie
    assert oracle._chain(a, b, 1) == np.float32(1)  # the tie goes to even, the rest is lost


def test_seeds_and_intermediates() -> None:
    one, two = (
        execute(_small(), "tpu-v3", precision="bf16", intermediates=True),
        execute(_small(), "tpu-v3", precision="bf16", seed=1),
    )
    assert list(one.intermediates) == ["1", "2", "3", "4", "5", "6", "7"]
    assert one.labels["2"] == "depthwise"
    assert not np.array_equal(one.outputs["7"], two.outputs["7"])
    again = execute(_small(), "tpu-v3", precision="bf16")
    assert np.array_equal(one.outputs["7"], again.outputs["7"])
    assert any("not claimed bit-exact" in n for n in one.notes)


def test_batch_and_shapes() -> None:
    assert execute("resnet18", "fp32", batch=2).outputs["32"].shape == (2, 1000)
    with pytest.raises(HwsimError, match="all its shapes are fixed"):
        execute(_small(), "fp32", batch=2)


@pytest.mark.parametrize(("target", "precision", "message"), [
    ("eyeriss-like", "bf16", "how its matrix unit rounds is not known"), ("a100", None, "not public"),
    ("tpu-v3", "int8", "need scales"), ("a100", "fp8", "no e4m3 instruction"), ("a101", "fp16", "a101"),
    ("exact", "fp16", "leave precision out"), ("a100", "fp17", "unknown precision"),
])  # fmt: skip
def test_refusals_are_one_line(target: str, precision: str | None, message: str) -> None:
    with pytest.raises(HwsimError, match=message) as caught:
        execute(_small(), target, precision=precision)
    assert "\n" not in str(caught.value)


def test_precision_per_layer() -> None:
    target = machine("h100")
    found = Assignment(target, {"*": "fp16", "head*": "tf32"})
    assert found.of("head", "linear").inputs == ("tf32", "tf32")
    assert found.of("first", "conv").inputs == ("fp16", "fp16")
    both = execute(_small(), "h100", precision={"*": "fp16", "head*": "tf32"})
    assert not np.array_equal(both.outputs["7"], execute(_small(), "h100", precision="fp16").outputs["7"])


def test_numerics_finds_overflow_and_its_layer() -> None:
    net = Builder("big")
    x = net.linear(net.input("x", (4, 16)), 16, bias=False, name="calm")
    y = net.op("mul", x, value=1e6, name="blow")
    built = net.build(net.linear(y, 4, bias=False, name="after"))
    fp16, bf16 = numerics(built, "h100", ["fp16", "bf16"])
    assert fp16.worst.label == "blow"
    assert fp16.layers[1].overflow == fp16.layers[1].not_finite > 0
    assert fp16.layers[0].overflow == 0
    assert all(la.overflow == 0 for la in bf16.layers)


def test_numerics_orders_precisions() -> None:
    found = {n.precision: n.layers[-1].snr_db for n in numerics(_small(), "h100", ["fp16", "bf16", "fp8", "e5m2"])}
    assert found["fp16"] > found["bf16"] > found["fp8"] > found["e5m2"] > 0


def test_underflow_is_counted() -> None:
    net = Builder("tiny")
    built = net.build(net.op("mul", net.input("x", (64,)), value=2.0**-30, name="shrink"))
    (fp16,) = numerics(built, "a100", ["fp16"])
    assert fp16.layers[0].underflow == 64


def test_error_measures() -> None:
    assert ulp(np.array([1.0, 1.5, 2.0, 0.0, 2.0**-140]), "fp32").tolist() == [
        2.0**-23,
        2.0**-23,
        2.0**-22,
        2.0**-149,
        2.0**-149,
    ]
    assert ulp(np.array([1.0]), "bf16")[0] == 2.0**-7
    made = statistics(np.array([[1.0, 2.5]]), np.array([[2.0, 1.0]]), "fp32")
    assert made.top1 == 0.0
    assert made.snr_db == pytest.approx(10 * np.log10(5 / 3.25))
    assert ulps_apart(np.float32([0.0, 1.0]), np.float32([-0.0, 1.0000001])).tolist() == [0, 1]


TFLITE = sorted((Path(__file__).resolve().parents[1] / "data").rglob("*.tflite"))


def test_a_tflite_file_runs_in_its_semantics() -> None:
    if not TFLITE:
        pytest.skip("no .tflite file among the test data")
    path = min(TFLITE, key=lambda p: p.stat().st_size)
    try:
        found = verify(path, "tpu-v4i")
    except HwsimError as error:
        pytest.skip(f"not executable: {error}")
    assert found.arithmetic == "tflite-reference"
    assert found.different == 0
    assert "LiteRT" in found.oracle or not found.oracle
    with pytest.raises(HwsimError, match="states its own precision"):
        execute(path, "tpu-v4i", precision="bf16")


@pytest.mark.parametrize("name", ["file", "allow_pickle", "layer/1:0"])
def test_outputs_of_any_name_are_written(name: str, tmp_path: Path) -> None:
    from hwsim.execution.command import _write

    _write(tmp_path / "out.npz", {name: np.arange(3, dtype=np.float32)})
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert found[name].tolist() == [0.0, 1.0, 2.0]
