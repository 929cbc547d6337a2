"""What each thing that takes a kernel's time means, in a sentence a reader can act on."""

from __future__ import annotations

_BY_FAMILY = {
    "gpu": {
        "tensor cores": "they multiply all the time: a narrower format, 2:4 or a faster clock would help",
        "CUDA cores": "they calculate all the time; Tensor Cores have no part in these kernels",
        "memory bandwidth": "bytes from DRAM: narrower formats, fusion or a larger batch (weights are read once) would help",
        "L2 bandwidth": "operands cross from the L2 to the SMs faster than it can send them; larger tiles would help",
        "shared memory": "feeding the units from shared memory takes longer than the arithmetic",
        "latency": (
            "each step of a tile waits for loads in flight, more than its buffers and the CTAs beside it can hide: too "
            "little work an SM, or units so fast that their operands come too late"
        ),
        "instruction issue": "the SM issues element-wise work, address arithmetic and conversions; the pipes wait",
        "tail wave": "the last round of CTAs fills only part of the SMs; another batch or shape may fit better",
        "kernel launch": "kernels are shorter than what starting one costs: batch, fuse, or replay them as a graph",
        "epilogue": "results leave after the arithmetic; little K for much output",
        "DLA": "the deep-learning accelerator calculates",
        "communication": "GPUs exchange partial results; fewer ways, or a faster link would help",
    },
    "systolic": {
        "matrix unit": "the array multiplies all the time",
        "vector unit": "element-wise work; the array waits",
        "weight fetch": "weights come from memory more slowly than the array uses them: batch more rows with each",
        "weight shift": "weights are shifted into the array for too few rows: a larger batch would help",
        "activation fetch": "activations come from memory more slowly than the array uses them",
        "dispatch": "starting a run takes longer than the run",
    },
    "edge-tpu": {
        "parameter streaming": "weights that do not fit the on-chip memory cross the link in every run; more chips or USB 3 help",
        "host link": "inputs, results or weights cross the link to the host",
        "host work": "operators the chip cannot do run on the host",
    },
    "cpu": {
        "memory bandwidth": "weights or activations come from DRAM; int8 or a larger batch would help",
        "cache bandwidth": "data come from the outer cache faster than it delivers; the core waits",
        "interpreter": "the interpreter costs more than the kernels it calls",
        "instruction issue": "loads, stores and conversions take the issue slots",
    },
}  # fmt: skip


def meaning(family: str, limiter: str) -> str:
    """Return what it means that ``limiter`` takes the time on machines of ``family``; empty where the name says it."""
    return _BY_FAMILY.get(family, {}).get(limiter, "")
