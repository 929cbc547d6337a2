"""The slow twin of the DLA's array: every pass over output positions, kernel taps, channels and kernels, one by one."""

from __future__ import annotations

from collections.abc import Iterator

from hwsim.timing.dla import IMAGE_CHANNELS, DlaView


def passes(
    view: DlaView, positions: int, taps: int, row: int, inputs: int, outputs: int, groups: int, kernels: int
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (output position, tap, channel block, kernel block) for every clock of the array on one image.

    Groups are dealt into passes: as many side by side as have room in the array's channels.
    """
    image = groups == 1 and inputs <= IMAGE_CHANNELS
    tap_list = range(0, taps, row) if image else range(taps)
    depth = inputs * row if image else inputs
    left = groups
    while left > 0:
        room = 1
        while groups > 1 and room < left and (room + 1) * inputs <= view.channels:
            room += 1
        full = 1
        while groups > 1 and full < groups and (full + 1) * inputs <= view.channels:
            full += 1
        for position in range(0, positions, view.positions):
            for tap in tap_list:
                for channel in range(0, depth, view.channels):
                    for kernel in range(0, full * outputs, kernels):
                        yield position, tap, channel, kernel
        left -= room
