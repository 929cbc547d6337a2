"""The pipeline engine compiled with numba, for sweeps: the same source, the same numbers."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from hwsim.timing import pipeline

_FUNCTIONS = ("release", "_explain", "_shift", "_advance", "run_nest")  # callees first
_OUTPUTS = 3  # state, waits and busy, the arguments before the scratch vector


@cache
def compiled_kernels() -> dict[str, Callable[..., Any]]:
    """Return the engine's functions compiled, by name; ``run_nest`` takes int64 arrays where it says vector.

    They are copies bound to one another, so the interpreted engine stays as it is. Machine code is kept on disk.
    """
    import numba

    namespace = dict(vars(pipeline))
    for name in _FUNCTIONS:
        source = getattr(pipeline, name)
        copy = types.FunctionType(source.__code__, namespace, name, source.__defaults__)
        copy.__module__, copy.__qualname__ = source.__module__, source.__qualname__
        namespace[name] = numba.njit(cache=True)(copy)
    return {name: namespace[name] for name in _FUNCTIONS}


@cache
def compiled_engine() -> Callable[..., int]:
    """Return a drop-in for `pipeline.run_nest` (as the ``engine`` of `run.run`): compiled, given sequences of ints."""
    run_nest = compiled_kernels()["run_nest"]

    def engine(*arguments: Any) -> int:
        given = [np.asarray(a, np.int64) if isinstance(a, list | tuple) else a for a in arguments]
        finish = int(run_nest(*given))
        for out, result in zip(arguments[-1 - _OUTPUTS : -1], given[-1 - _OUTPUTS : -1], strict=True):
            out[:] = result.tolist()
        return finish

    return engine
