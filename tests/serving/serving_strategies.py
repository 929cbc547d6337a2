"""Random shops for the property tests: small times, so that much happens in the same nanosecond."""

from __future__ import annotations

from hypothesis import strategies as st

from hwsim.serving.setup import ORDERS, ROUTINGS, Kind, Requests, Setup
from hwsim.serving.token_setup import RESERVES, TOKEN_ROUTINGS, Curve, TokenKind, TokenRequests, TokenSetup


@st.composite
def kinds(draw: st.DrawFn, models: int) -> Kind:
    hold, span = [], []
    for _ in range(models):
        cap = draw(st.integers(0, 5))
        row = [draw(st.integers(1, 12)) for _ in range(cap)]
        late = [draw(st.integers(0, 6)) for _ in range(cap)] if draw(st.booleans()) else [0] * cap
        hold.append((0, *row) if cap else ())
        span.append((0, *(h + x for h, x in zip(row, late, strict=True))) if cap else ())
    weights = tuple(draw(st.integers(1, 5)) for _ in range(models))
    swaps = tuple(draw(st.integers(0, 9)) for _ in range(models))
    return Kind(tuple(hold), tuple(span), swaps, weights, draw(st.integers(1, 15)))


@st.composite
def shops(draw: st.DrawFn) -> tuple[Setup, Requests]:
    models = draw(st.integers(1, 3))
    made = [draw(kinds(models)) for _ in range(draw(st.integers(1, 2)))]
    machines = tuple(draw(st.integers(0, len(made) - 1)) for _ in range(draw(st.integers(1, 5))))
    served = [m for m in range(models) if any(made[k].max_batch(m) for k in machines)]
    if not served:
        made[machines[0]] = Kind(((0, 3),) * models, ((0, 4),) * models, (2,) * models, (1,) * models, 2)
        served = list(range(models))
    closed = draw(st.booleans()) and draw(st.booleans())
    count = draw(st.integers(1, 40))
    gaps = [draw(st.integers(0, 6)) for _ in range(count)]
    arrival = [sum(gaps[: i + 1]) for i in range(count)]
    several = draw(st.booleans())
    setup = Setup(
        tuple(made),
        machines,
        tuple(draw(st.sampled_from([0, 0, 3, 20])) for _ in range(models)),
        draw(st.sampled_from(ROUTINGS)),
        draw(st.sampled_from(ORDERS)),
        None if closed else draw(st.none() | st.integers(1, 6)),
        None if closed else draw(st.none() | st.integers(0, 25)),
        draw(st.sampled_from([1, 1, 2, 3, 4])),
    )
    unit = st.floats(0, 1, exclude_max=True)
    requests = Requests(
        arrival,
        [draw(st.sampled_from(served)) for _ in range(count)],
        [draw(st.integers(1, 7)) if several else 1 for _ in range(count)],
        draw(st.integers(1, 5)) if closed else 0,
        draw(st.integers(0, 4)),
        [(draw(unit), draw(unit)) for _ in range(count)],
        [draw(st.floats(0.1, 3)) for _ in range(7 * count)] if draw(st.booleans()) else (),
    )
    return setup, requests


@st.composite
def token_shops(draw: st.DrawFn) -> tuple[TokenSetup, TokenRequests]:
    count = draw(st.integers(1, 25))
    prompt = [draw(st.integers(1, 12)) for _ in range(count)]
    output = [draw(st.integers(1, 9)) for _ in range(count)]
    batch = draw(st.integers(1, 4))
    made = []
    for _ in range(draw(st.integers(1, 2))):
        block = draw(st.integers(1, 5))
        least = max(-(-(p + o - 1) // block) for p, o in zip(prompt, output, strict=True))
        most = draw(st.integers(1, 8))
        prefill = {1 << e: draw(curves()) for e in range(3)}
        decode = {1 << e: draw(curves()) for e in range(4)}
        made.append(TokenKind(prefill, decode, least + draw(st.integers(0, 8)), block, most))
    closed = draw(st.booleans()) and draw(st.booleans())
    gaps = [draw(st.integers(0, 9)) for _ in range(count)]
    setup = TokenSetup(
        tuple(made),
        tuple(draw(st.integers(0, len(made) - 1)) for _ in range(draw(st.integers(1, 4)))),
        draw(st.sampled_from(TOKEN_ROUTINGS)),
        draw(st.sampled_from(RESERVES)),
        batch,
        draw(st.sampled_from([0.0, 0.01, 0.3])),
        None if closed else draw(st.none() | st.integers(1, 6)),
        None if closed else draw(st.none() | st.integers(0, 25)),
    )
    unit = st.floats(0, 1, exclude_max=True)
    requests = TokenRequests(
        [sum(gaps[: i + 1]) for i in range(count)],
        prompt,
        output,
        draw(st.integers(1, 5)) if closed else 0,
        draw(st.integers(0, 4)),
        [(draw(unit), draw(unit)) for _ in range(count)],
    )
    return setup, requests


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    nodes = sorted({1, *draw(st.sets(st.integers(1, 60), max_size=3))})
    times = [draw(st.integers(1, 9))]
    for _ in nodes[1:]:
        times.append(times[-1] + draw(st.integers(0, 9)))
    return Curve(tuple(nodes), tuple(times))
