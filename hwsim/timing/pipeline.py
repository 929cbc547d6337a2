"""The pipeline engine: when every stage of a kernel runs, exactly, from the schedule's loop nest and service times.

Stages issue in program order over the nest; each unit serves its issues first come, first served. An issue starts when
its unit is free, the issues it depends on have ended, and (for a stage whose results are buffered) the result that
last occupied its buffer has been used by every later stage. These are max-plus recurrences, so once an iteration of a
loop has shifted every time it touches by one constant, all further full iterations shift them by the same: the engine
detects that (period one or two) and jumps, exactly, to the last iteration. Cost therefore does not grow with the trip
counts. `hwsim.timing.reference.pipeline_simpy` is the obvious twin, event by event, and must give the same numbers;
`docs/schedule.md` has the rules, and why the jump is exact.

`run_nest` stays in numba's subset: it takes lists (one answer, interpreted) or int64 arrays (sweeps, compiled). Source
of the periodicity: Baccelli, Cohen, Olsder, Quadrat, *Synchronization and Linearity* (1992), theorem 3.112.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Vector: TypeAlias = Any
"""A list of ints (interpreted) or an int64 array (compiled)."""

UNITS = 10
RING = 4  # issues of a stage whose end is remembered: dependencies reach at most RING - 1 issues back
BUFFERS = 8  # most buffers a stage may have
DEPS = 4
CAUSES = 11
HELD = 5  # cause code `accumulator`: the stage's own results have nowhere to go
STAGE_STATE = RING + BUFFERS + 3  # ends, releases, last start, what it waited for, whether it has issued
MAX_LOOPS = 6
MAX_STAGES = 12
PERIODS = 2  # longest period looked for, in iterations of a loop
SNAPSHOTS = PERIODS + 1


def state_size(stages: int) -> int:
    """Length of the state vector of a nest with that many stages."""
    return UNITS + stages * STAGE_STATE


def work_size(stages: int) -> int:
    """Length of the scratch vector of a nest with that many stages."""
    return SNAPSHOTS * MAX_LOOPS * (state_size(stages) + CAUSES + stages + 1)


def run_nest(
    trips: Vector,  # [loops]
    loops: int,
    bend: Vector,  # [3] a loop that has so many more trips per index of an outer loop (loop, outer, step), or -1, -1, 0
    stages: int,
    unit: Vector,  # [stages] below: unit code
    depth: Vector,  # loops outside an issue
    at_end: Vector,  # 1: issues after the inner loops, 0: before
    buffers: Vector,  # results that may be alive at once; 0: not bounded
    dep: Vector,  # [stages x DEPS] stage waited for, or -1
    lag: Vector,  # [stages x DEPS] how many of its issues back
    reach: Vector,  # [stages] how many past ends of the stage anything reads
    user: Vector,  # [stages x stages] 1 where column stage uses the row stage's buffers
    cause: Vector,  # what a wait for the stage is called
    floor: Vector,  # earliest start of the stage (inputs ready, kernel may begin)
    heads: Vector,  # [loops] class bit set in the first iteration of the loop, 0 if that is like the others
    mask: Vector,  # [stages] class bits of the loops outside its issues
    classes: int,
    service: Vector,  # [stages x classes] cycles per issue; class bit 2**l set: last iteration of loop l
    spine: int,  # the stage whose timeline is explained
    begin: int,  # when the kernel's share of the timeline begins (stages that await nothing may start before)
    state: Vector,  # in and out: unit free times, then per stage as STAGE_STATE says; none negative
    waits: Vector,  # out [CAUSES]: cycles of the spine's timeline not spent serving it, by cause
    busy: Vector,  # out [stages + 1]: cycles served; last, those of the spine's that are not before ``begin``
    work: Vector,  # scratch [work_size(stages)]
) -> int:
    """Advance ``state`` over one kernel's nest and return when its last issue ends (``begin`` if that is earlier).

    The spine's timeline from ``begin`` to that end is split exactly: ``busy[stages]`` + sum(``waits``) = end - begin.
    """
    size = UNITS + stages * STAGE_STATE
    whole = size + CAUSES + stages + 1
    index = [0] * MAX_LOOPS
    count = [0] * MAX_LOOPS
    for level in range(loops):
        count[level] = trips[level]
    seen = [0] * MAX_LOOPS
    spine_end = begin
    finish = begin
    while True:
        if bend[0] >= 0:
            count[bend[0]] = trips[bend[0]] + bend[2] * index[bend[1]]
        bits = 0
        for level in range(loops):
            if index[level] == count[level] - 1:
                bits |= 1 << level
            if index[level] == 0:
                bits |= heads[level]
        for s in range(stages):
            # Issue only where the loops inside an issue stand at their beginning (or end).
            fires = True
            for level in range(depth[s], loops):
                if at_end[s]:
                    if index[level] != count[level] - 1:
                        fires = False
                elif index[level] != 0:
                    fires = False
            if not fires:
                continue
            base = UNITS + s * STAGE_STATE
            start = state[unit[s]]
            blame = s
            if floor[s] > start:
                start = floor[s]
                blame = -1
            for d in range(DEPS):
                q = dep[s * DEPS + d]
                if q >= 0:
                    end = state[UNITS + q * STAGE_STATE + lag[s * DEPS + d]]
                    if end > start:
                        start = end
                        blame = q
            if buffers[s] > 0:
                first = base + RING
                if state[base + RING + BUFFERS + 2] > 0:
                    # The issue before this one is released when its users' latest issues have ended.
                    for b in range(BUFFERS - 1, 0, -1):
                        state[first + b] = state[first + b - 1]
                    state[first] = release(s, stages, user, state)
                if state[first + buffers[s] - 1] > start:
                    start = state[first + buffers[s] - 1]
                    blame = spine
                    for q in range(stages):
                        if user[s * stages + q] and q > s:
                            blame = q
                            break
            if blame == s:
                # Its unit was taken: by which stage of this kernel, if another one.
                for q in range(stages):
                    if q != s and unit[q] == unit[s] and state[UNITS + q * STAGE_STATE] == start:
                        blame = q
            cycles = service[s * classes + (bits & mask[s])]
            end = start + cycles
            state[unit[s]] = end
            for r in range(RING - 1, 0, -1):
                state[base + r] = state[base + r - 1]
            state[base] = end
            state[base + RING + BUFFERS] = start
            state[base + RING + BUFFERS + 1] = blame
            state[base + RING + BUFFERS + 2] = 1
            busy[s] += cycles
            if end > finish:
                finish = end
            if s == spine:
                if end > begin:
                    busy[stages] += end - max(start, begin)
                if start > max(spine_end, begin):
                    _explain(max(spine_end, begin), start, blame, stages, cause, state, waits, s, blame > s)
                spine_end = end
        # Advance the odometer, innermost loop first, jumping over iterations that only shift time.
        level = loops - 1
        while level >= 0:
            here = index[level]
            if here >= 1 and here < count[level] - 2 and level != bend[1]:
                jumped = 0
                for period in range(1, PERIODS + 1):
                    if seen[level] >= period and jumped == 0:
                        old = (level * SNAPSHOTS + (seen[level] - period) % SNAPSHOTS) * whole
                        shift = _shift(level, stages, unit, depth, reach, buffers, state, work, old)
                        if shift >= 0:
                            repeats = (count[level] - 2 - here) // period
                            early = depth[spine] > level and work[old + UNITS + spine * STAGE_STATE] < begin
                            if early and shift > 0:
                                # The spine is still ahead of ``begin``, where nothing is charged: stop there.
                                repeats = min(repeats, (begin - spine_end) // shift)
                            if repeats > 0:
                                jumped = repeats * period
                                gain = repeats * shift
                                _advance(level, stages, unit, depth, state, gain)
                                for c in range(CAUSES):
                                    waits[c] += repeats * (waits[c] - work[old + size + c])
                                for s in range(stages + 1):
                                    busy[s] += repeats * (busy[s] - work[old + size + CAUSES + s])
                                if depth[spine] > level:
                                    spine_end = state[UNITS + spine * STAGE_STATE]
                if jumped:
                    index[level] += jumped
                    seen[level] = 0
                else:
                    at = (level * SNAPSHOTS + seen[level] % SNAPSHOTS) * whole
                    work[at : at + size] = state[:size]
                    work[at + size : at + size + CAUSES] = waits[:CAUSES]
                    work[at + size + CAUSES : at + whole] = busy[: stages + 1]
                    seen[level] += 1
            index[level] += 1
            if index[level] < count[level]:
                break
            index[level] = 0
            seen[level] = 0
            level -= 1
        if level < 0:
            break
    # What follows the spine's last issue.
    spine_end = max(spine_end, begin)
    if finish > spine_end:
        last = spine
        for s in range(stages):
            if state[UNITS + s * STAGE_STATE] == finish:
                last = s
        _explain(spine_end, finish, last, stages, cause, state, waits, spine, False)
    return finish


def release(s: int, stages: int, user: Vector, state: Vector) -> int:
    """When the result of stage ``s``'s latest issue is free: its users' latest issues have ended, or it has no user."""
    released = 0
    users = 0
    for q in range(stages):
        if user[s * stages + q]:
            users += 1
            released = max(released, state[UNITS + q * STAGE_STATE])
    return released if users else state[UNITS + s * STAGE_STATE]


def _explain(
    lo: int, hi: int, blame: int, stages: int, cause: Vector, state: Vector, waits: Vector, spine: int, held: bool
) -> None:
    """Charge the spine's idle interval [lo, hi) to the stage it waited for, and to what that one waited for before.

    ``held``: it waited for a later stage to take its results. Where that stage itself waited for the spine, more room for
    results would have helped, and the accumulators are charged; where it was busy all along, it is.
    """
    hops = 0
    stage = blame
    while hi > lo and hops < stages:
        if stage < 0:
            break
        base = UNITS + stage * STAGE_STATE + RING + BUFFERS
        begun = state[base]
        if begun >= hi or begun < lo:
            begun = lo
        following = state[base + 1]
        waits[HELD if held and hops == 0 and following == spine else cause[stage]] += hi - begun
        hi = begun
        if following in (stage, spine):
            # Its unit was busy, or it waited for a buffer the spine held: the chain ends here.
            break
        stage = following
        hops += 1
    if hi > lo:
        # Before all of that: inputs of the kernel were not ready, or the last stage's own unit was taken.
        waits[cause[stage] if stage >= 0 else 0] += hi - lo


def _shift(
    level: int,
    stages: int,
    unit: Vector,
    depth: Vector,
    reach: Vector,
    buffers: Vector,
    state: Vector,
    work: Vector,
    old: int,
) -> int:
    """Cycles by which every live time touched below ``level`` moved since the snapshot; -1 if not all by the same."""
    shift = -1
    for s in range(stages):
        if depth[s] > level:
            base = UNITS + s * STAGE_STATE
            delta = state[unit[s]] - work[old + unit[s]]
            if shift < 0:
                shift = delta
            if delta != shift:
                return -1
            # Only what is read later counts; the rest of a ring may be older than the loop.
            for i in range(reach[s]):
                if state[base + i] - work[old + base + i] != shift:
                    return -1
            for i in range(base + RING, base + RING + buffers[s]):
                # A release before the stage's unit is free delays nothing, now or later: it need not move along.
                dead = state[i] <= state[unit[s]] and work[old + i] <= work[old + unit[s]]
                if not dead and state[i] - work[old + i] != shift:
                    return -1
            # Its start moves as its end does, service being equal; what it waited for explains later waits.
            if state[base + RING + BUFFERS + 1] != work[old + base + RING + BUFFERS + 1]:
                return -1
    return shift


def _advance(level: int, stages: int, unit: Vector, depth: Vector, state: Vector, gain: int) -> None:
    """Move every time touched below ``level`` by ``gain``, each unit once."""
    for u in range(UNITS):
        moved = False
        for s in range(stages):
            if depth[s] > level and unit[s] == u:
                moved = True
        if moved:
            state[u] += gain
    for s in range(stages):
        if depth[s] > level:
            base = UNITS + s * STAGE_STATE
            for i in range(RING + BUFFERS + 1):
                state[base + i] += gain
