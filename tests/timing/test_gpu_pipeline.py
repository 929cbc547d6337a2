"""The closed form of a CTA's main loop equals the loop stepped copy by copy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hwsim.timing.gpu_pipeline import pipeline_cycles


def stepped(steps: int, stages: int, load: int, latency: int, use: int) -> int:
    """The same loop, one copy and one computation at a time."""
    free = [0] * stages
    path = done = 0
    for step in range(steps):
        path = max(path, free[step % stages]) + load
        done = max(done, path + latency) + use
        free[step % stages] = done
    return done


@given(
    st.integers(1, 60), st.integers(1, 8), st.integers(0, 12), st.integers(0, 60), st.integers(0, 12)
)  # fmt: skip
def test_closed_form_equals_stepping(steps: int, stages: int, load: int, latency: int, use: int) -> None:
    assert pipeline_cycles(steps, stages, load, latency, use) == stepped(steps, stages, load, latency, use)


def test_enough_stages_hide_the_latency_and_too_few_do_not() -> None:
    assert pipeline_cycles(100, 8, 10, 50, 10) == 70 + 99 * 10
    assert pipeline_cycles(101, 2, 10, 50, 10) == 70 + 50 * 70
