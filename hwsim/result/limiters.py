"""The names reports use for what a machine does or waits for."""

LIMITERS = {
    "matrix": "matrix unit", "vector_unit": "vector unit", "weight_fetch": "weight fetch", "weight_shift": "weight shift",
    "activation_fetch": "activation fetch", "accumulator": "accumulator", "store": "result store",
    "dispatch": "dispatch", "conversion": "conversion", "link": "host link", "none": "input",
}  # fmt: skip
"""What a systolic machine does or waits for, by cause code: the names every report uses."""

FURTHER_LIMITERS = {
    "launch": "kernel launch", "tail": "tail wave", "dram": "memory bandwidth", "l2": "L2 bandwidth",
    "shared_memory": "shared memory", "latency": "latency", "epilogue": "epilogue", "issue": "instruction issue",
    "cache": "cache bandwidth", "interpreter": "interpreter", "host": "host work", "streaming": "parameter streaming",
    "communication": "communication", "flash": "flash",
}  # fmt: skip
"""Further names that other families use."""

ALL = LIMITERS | FURTHER_LIMITERS
"""Every name by its cause code."""
UNIT_NAMES = ("tensor cores", "CUDA cores", "DLA", "cells", "SIMD units", "processor")
"""What other families call their busy units."""
