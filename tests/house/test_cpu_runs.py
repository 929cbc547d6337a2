"""Every shipped processor answers, and other machines can ask what their host costs."""

from __future__ import annotations

import pytest

import hwsim
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.network.load import load_network
from hwsim.plan.cpu_work import cpu_kernel, cpu_kernel_s, cpu_kernels, host_work_s


def test_a_network_on_a_processor_adds_up() -> None:
    result = hwsim.simulate("mobilenet_v1", "raspberry-pi-4")
    assert sum(r["latency_s"] for r in result.kernels) == pytest.approx(result.latency_s)
    assert sum(result.time_shares.values()) == pytest.approx(1.0)
    assert result.latency_s >= result.bound_s > 0
    assert result.kernels[0]["core_limit"]


def test_fewer_threads_are_slower_and_named_after_a_colon() -> None:
    one, four = (hwsim.simulate("mobilenet_v2", "raspberry-pi-4", stack=f"xnnpack:{n}").latency_s for n in (1, 4))
    assert 1.5 * four < one < 4.2 * four
    with pytest.raises(HwsimError, match="4 cores"):
        hwsim.simulate("mobilenet_v2", "raspberry-pi-4", stack="xnnpack:5")


def test_fallback_kernels_cost_what_they_do_in_a_whole_run() -> None:
    acc = load_accelerator("raspberry-pi-4")
    net = load_network("mobilenet_v2").bind(N=1)
    kernels = cpu_kernels(net, acc)
    result = hwsim.simulate("mobilenet_v2", "raspberry-pi-4")
    assert sum(cpu_kernel_s(acc, k) for k in kernels) == pytest.approx(result.latency_s, rel=1e-3)
    some = cpu_kernels(net, acc, layers={net.layers[-1].id})
    assert [k.layers for k in some] == [kernels[-1].layers]
    assert cpu_kernel(acc, some[0]).limit


def test_host_work_is_bounded_by_memory_and_grows() -> None:
    acc = load_accelerator("raspberry-pi-4")
    assert host_work_s(acc) == 0.0
    megabyte = host_work_s(acc, read_bytes=1e6)
    assert megabyte >= 1e6 / 5.1e9
    assert host_work_s(acc, read_bytes=1e6, scalar_operations=1e6) > megabyte
    assert host_work_s(acc, read_bytes=1e6, in_cache=True) < megabyte
    with pytest.raises(HwsimError, match="negative"):
        host_work_s(acc, read_bytes=-1)
