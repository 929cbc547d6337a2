"""What every trace in models/ must satisfy, whoever wrote it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from hwsim.network.graph import Network
from hwsim.network.load import zoo
from hwsim.network.ops import OPS
from hwsim.network.trace import format_trace, parse_trace

NAMES = sorted(zoo())


@dataclass(frozen=True)
class Trace:
    """One shipped trace: its text, the network read from it, and that network at its default sizes."""

    name: str
    text: str
    net: Network
    bound: Network

    @property
    def header(self) -> dict[str, str]:
        lines = [line[1:].partition(":") for line in self.text.splitlines() if line.startswith("#")]
        return {key.strip(): value.strip() for key, _, value in lines}


@pytest.fixture(scope="module", params=NAMES)
def trace(request: pytest.FixtureRequest) -> Trace:
    text = zoo()[request.param].read_text(encoding="utf-8")
    net = parse_trace(text, request.param)
    return Trace(request.param, text, net, net.bind())


def test_zoo_is_not_empty() -> None:
    assert len(NAMES) >= 60


def test_header(trace: Trace) -> None:
    head, net, name = trace.header, trace.net, trace.name
    assert head["model"] == name
    for key in ("source", "task", "licence"):
        assert len(head.get(key, "")) > 3, f"{name}: no # {key}:"
    assert int(head["macs"]) == net.macs, "read_trace refuses a wrong sum; the header must also be there"
    assert int(head["params"]) == net.params
    assert not re.search(r"(/home/|/root/|/work/|/tmp/|[A-Z]:\\)", trace.text), "a machine's path in a shipped file"


def test_round_trip_is_byte_identical(trace: Trace) -> None:
    assert format_trace(trace.net) == trace.text


def test_no_dead_layers(trace: Trace) -> None:
    net = trace.net
    outputs = set(net.output_names)
    dead = [la.id for la in net.layers if not net.consumers[la.id] and la.id not in outputs]
    assert not dead, f"nobody reads layers {dead[:5]}"
    unread = [t.name for t in net.inputs if not net.consumers[t.name]]
    assert not unread, f"nobody reads inputs {unread}"


def test_batch_scales_work(trace: Trace) -> None:
    net = trace.net
    assert net.symbols.get("N") == 1, "N is the batch of every trace, 1 by default"
    one, two = trace.bound, net.bind(N=2)
    two.validate()
    fed = {t.name for t in net.inputs}  # what depends on an input; constants may be made once or for every picture
    for la in net.layers:
        macs = [sum(p.macs for p in bound.products[la.id]) for bound in (one, two)]
        if fed & set(la.src):
            fed.add(la.id)
        assert macs[1] == 2 * macs[0] or (la.id not in fed and macs[1] == macs[0]), f"layer {la.id} ({la.name})"
    assert two.params == one.params
    stored = [
        [w.bytes_as(la) for la in bound.layers for w in bound.weights[la.id] if la.op != "constant" or w.learned]
        for bound in (one, two)
    ]  # position indices made on the fly may follow the batch
    assert stored[0] == stored[1]
    assert one.activation_bytes < two.activation_bytes <= 2 * one.activation_bytes


def test_memory_figures(trace: Trace) -> None:
    net = trace.bound
    largest = max(
        net.tensor_bytes(la.id) + sum(net.tensor_bytes(s) for s in set(la.src) - {la.id})
        for la in net.layers
        if OPS[la.op].kind != "view" and all(net.by_id[s].op not in VIEWS for s in la.src if s in net.by_id)
    )
    everything = net.activation_bytes + sum(net.tensor_bytes(t.name) for t in net.inputs)
    assert 0 < largest <= net.peak_activation_bytes <= everything
    assert len(net.live_bytes) == len(net.layers)
    assert net.weight_bytes > 0


VIEWS = {name for name, op in OPS.items() if op.kind == "view"}


def test_every_layer_has_consistent_work(trace: Trace) -> None:
    net = trace.bound
    for la in net.layers:
        op, work, products = OPS[la.op], net.vector_work[la.id], net.products[la.id]
        assert min(work.alu, work.special, work.read, work.write) >= 0
        assert bool(products) == (op.kind == "contract")
        for p in products:
            assert min(p.batch, p.m, p.n, p.k, p.a_elements, p.b_elements, p.c_elements, p.repeat) > 0
            assert p.macs == p.batch * p.m * p.n * p.k * p.repeat
        if op.kind == "view":
            assert work.read == work.write == 0
