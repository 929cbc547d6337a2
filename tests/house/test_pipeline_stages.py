"""Stages around a network: they add up, grow with the batch, need a host, and are typed on the command line."""

from __future__ import annotations

import pytest

import hwsim
from hwsim.cli import main
from hwsim.errors import HwsimError
from hwsim.simulation.pipeline import pipeline_of


def test_stages_add_up_and_grow_with_the_batch() -> None:
    one = hwsim.simulate("mobilenet_v1", "raspberry-pi-4", precision="int8")
    four = hwsim.simulate("mobilenet_v1", "raspberry-pi-4", precision="int8", batch=4)
    around, wide = (pipeline_of(r, pre="decode,resize", post="argmax") for r in (one, four))
    assert [s.name for s in (*around.before, *around.after)] == ["decode", "resize", "argmax"]
    total = sum(s.seconds for s in (*around.before, *around.after)) + one.latency_s
    assert around.latency_s == pytest.approx(total) and around.throughput_per_s == pytest.approx(1 / total)
    assert [s.elements for s in wide.before] == [4 * s.elements for s in around.before]
    assert pipeline_of(one).latency_s == one.latency_s
    assert pipeline_of(one, pre="decode", image="640x360").before[0].seconds < around.before[0].seconds


def test_a_slower_host_takes_longer() -> None:
    times = []
    for host in ("x86-server", "raspberry-pi-3"):
        result = hwsim.simulate("mobilenet_v1", f"t4@{host}", precision="fp16")
        found = pipeline_of(result, pre="resize")
        assert found.host == host
        times.append(found.before[0].seconds)
    assert times[0] < times[1]


def test_a_machine_without_a_host_says_so() -> None:
    with pytest.raises(HwsimError, match="add --host"):
        pipeline_of(hwsim.simulate("alexnet", "tpu-v4"), pre="resize")


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "mobilenet_v1", "--on", "t4", "--host", "raspberry-pi-4", "--precision", "int8", "--pre", "resize"]
    assert main([*argv, "--post", "argmax"]) == 0
    out = capsys.readouterr().out
    assert "Pipeline resize" in out and "host raspberry-pi-4" in out
    assert main([*argv, "--post", "nsm"]) == 2
    assert "unknown stage 'nsm'" in capsys.readouterr().err
