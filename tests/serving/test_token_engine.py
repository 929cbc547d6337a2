"""Token serving: the fast engine against its SimPy twin, what must hold for both, and small cases by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from serving_strategies import token_shops

from hwsim.serving import token_engine
from hwsim.serving.reference import tokens
from hwsim.serving.setup import REJECTED, SERVED, TIMED_OUT
from hwsim.serving.token_setup import Curve, TokenKind, TokenRequests, TokenSetup


@settings(max_examples=300, deadline=None)
@given(token_shops())
def test_the_engine_and_its_twin_agree_on_every_request(shop: tuple[TokenSetup, TokenRequests]) -> None:
    setup, requests = shop
    assert token_engine.run(setup, requests).same(tokens.run(setup, requests)) == ""


@settings(max_examples=200, deadline=None)
@given(token_shops())
def test_nothing_is_lost_early_or_too_large(shop: tuple[TokenSetup, TokenRequests]) -> None:
    setup, requests = shop
    seen = token_engine.run(setup, requests)
    served = seen.status == SERVED
    assert (seen.start_ns[served] >= seen.arrival_ns[served]).all()
    assert (seen.first_ns[served] > seen.start_ns[served]).all()
    one = np.array(requests.output) == 1
    assert (seen.finish_ns[served & one] == seen.first_ns[served & one]).all()
    assert (seen.finish_ns[served & ~one] > seen.first_ns[served & ~one]).all()
    for k, kind in enumerate(setup.machines):
        assert seen.peak_blocks[k] <= setup.kinds[kind].blocks
    if setup.reserve == "full":
        assert not seen.sent_back.any()
    reads = sum(n for (_, phase, _, _), (n, _) in seen.iterations.items() if phase == "prefill")
    begun = int(np.count_nonzero(served)) + int(seen.sent_back.sum())
    assert -(-begun // setup.prefill_batch) <= reads <= begun
    if setup.timeout_ns is not None:
        late = seen.arrival_ns + setup.timeout_ns < seen.start_ns
        assert not late[served].any()


def machine(blocks: int = 100, most: int = 8, block: int = 4) -> TokenKind:
    """Reading takes 10 and 1 a token; a token for everyone 5, and 1 for every 10 tokens kept."""
    prefill = Curve((1, 101), (11, 111))
    return TokenKind(
        {1: prefill, 2: prefill, 4: prefill},
        {1 << e: Curve((1, 1001), (5, 105)) for e in range(4)},
        blocks,
        block,
        most,
    )


def test_one_request_by_hand() -> None:
    """Read at 0 in 10 + 8; three more tokens with 8, 9, 10 kept: 5 each, no tenth of a nanosecond is kept."""
    seen = token_engine.run(TokenSetup((machine(),), (0,)), TokenRequests([0], [8], [4]))
    assert (seen.start_ns[0], seen.first_ns[0], seen.finish_ns[0]) == (0, 18, 33)
    assert seen.iterations == {(0, "prefill", 1, 0): (1, 8), (0, "decode", 1, 0): (3, 27)}
    assert seen.busy_ns[0] == 33 and seen.peak_blocks[0] == 3  # 11 tokens in blocks of 4


def test_prompts_come_before_tokens_and_tokens_come_together() -> None:
    """The second is read when the first's iteration ends, which makes the first wait; then both get tokens together."""
    seen = token_engine.run(TokenSetup((machine(),), (0,)), TokenRequests([0, 20], [8, 8], [4, 3]))
    assert seen.first_ns.tolist() == [18, 23 + 18]
    assert seen.finish_ns.tolist() == [41 + 2 * 6, 41 + 2 * 6]
    batches = {size: n for (_, phase, size, _), (n, _) in seen.iterations.items() if phase == "decode"}
    assert batches == {1: 1, 2: 2}


def test_full_reservation_admits_only_what_will_fit_and_pages_admit_more() -> None:
    requests = TokenRequests([0, 0], [8, 8], [9, 9])
    tight = machine(blocks=6)  # 8 + 9 - 1 = 16 tokens: 4 blocks each, 2 for the prompts
    full = token_engine.run(TokenSetup((tight,), (0,), reserve="full"), requests)
    assert full.start_ns.tolist() == [0, int(full.finish_ns[0])] and not full.sent_back.any()
    paged = token_engine.run(TokenSetup((tight,), (0,), spare=0.0), requests)
    assert paged.start_ns.tolist() == [0, 18] and paged.sent_back.tolist() == [0, 1]
    assert paged.finish_ns[1] > paged.finish_ns[0]


def test_queues_reject_and_timeouts_drop() -> None:
    setup = TokenSetup((machine(most=1),), (0,), queue_capacity=1, timeout_ns=20)
    seen = token_engine.run(setup, TokenRequests([0, 1, 2], [8, 8, 8], [4, 4, 4]))
    assert seen.status.tolist() == [SERVED, TIMED_OUT, REJECTED]


def test_a_curve_goes_through_its_nodes_and_on() -> None:
    curve = Curve((1, 10, 30), (100, 190, 230))
    assert [curve.at(n) for n in (1, 10, 30, 20, 50)] == [100, 190, 230, 210, 270]
    assert Curve((1,), (7,)).at(99) == 7
