"""The contract of GPU files: peaks and bandwidths by hand, modes, MIG slices, Jetson boards."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.arithmetic.profiles import architecture
from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_accelerator
from hwsim.machine.gpu import gpu_of

ALL = {f.stem: load_accelerator(f.stem) for f in sorted(accelerators_dir().glob("*.toml"))}
GPUS = {name: acc for name, acc in ALL.items() if acc.family == "gpu"}
JETSONS = [name for name in GPUS if name.startswith("jetson-")]
every_gpu = pytest.mark.parametrize("name", GPUS)
every_mode = pytest.mark.parametrize("target", [f"{n}:{m}" for n, acc in GPUS.items() for m in acc.modes])

# SMs, clock MHz, DRAM GB/s, TDP W, dense fp16 TFLOPS with fp32 accumulators, int8 TOPS: from data sheets, not from the files.
SHEETS = {
    "v100-sxm2": (80, 1530, 900, 300, 125, 62.8),
    "v100-pcie": (80, 1380, 897, 250, 112, None),
    "t4": (40, 1590, 320, 70, 65, 130),
    "a100-sxm4-80gb": (108, 1410, 2039, 400, 312, 624),
    "a100-sxm4-40gb": (108, 1410, 1555, 400, 312, 624),
    "a100-pcie-40gb": (108, 1410, 1555, 250, 312, 624),
    "a100-pcie-80gb": (108, 1410, 1935, 300, 312, 624),
    "a30": (56, 1440, 933, 165, 165, 330),
    "a10": (72, 1695, 600, 150, 125, 250),
    "a2": (10, 1770, 200, 60, 18, 36),
    "rtx-3090": (82, 1695, 936, 350, 71, 284),
    "l4": (58, 2040, 300, 72, 121, 242),
    "l40s": (142, 2520, 864, 350, 362, 733),
    "h100-sxm": (132, 1980, 3352, 700, 989, 1979),
    "h100-pcie": (114, 1755, 2039, 350, 756, 1513),
    "h200": (132, 1980, 4800, 700, 989, 1979),
    "b200": (148, 1965, 7672, 1000, 2250, 4500),
}


@pytest.mark.parametrize("name", SHEETS)
def test_the_data_sheet(name: str) -> None:
    acc, gpu = GPUS[name], gpu_of(GPUS[name])
    sms, mhz, gbs, watts, fp16, int8 = SHEETS[name]
    assert (gpu.sm.count, gpu.sm.clock_hz) == (sms, mhz * 1e6)
    assert acc.dram.bandwidth_bytes_per_s == pytest.approx(gbs * 1e9, rel=0.003)
    assert acc.power.tdp_w == watts
    assert acc.peak_ops_per_s("fp16") == pytest.approx(fp16 * 1e12, rel=0.02)
    if int8 is not None:
        assert acc.peak_ops_per_s("int8") == pytest.approx(int8 * 1e12, rel=0.02)


@every_gpu
def test_rates_sms_and_clock_give_the_published_peaks(name: str) -> None:
    acc, gpu = GPUS[name], gpu_of(GPUS[name])
    peaks = {p.removeprefix("published."): v.number for p, v in acc.values.items() if p.startswith("published.")}
    assert any(key.startswith("peak_") for key in peaks) or name == "jetson-orin-nano-4gb"
    for key, peak in peaks.items():
        if key.startswith("peak_"):
            assert acc.peak_ops_per_s(key.removeprefix("peak_")) == pytest.approx(peak, rel=0.02), key
        elif key.startswith("half_accumulate_"):
            rate = gpu.tensor.macs_per_clk(key.removeprefix("half_accumulate_"), "fp16")
            assert 2 * gpu.sm.count * gpu.sm.matrix_clock_hz * rate == pytest.approx(peak, rel=0.02), key


@every_gpu
def test_peaks_are_the_fastest_pipe_counted_by_hand(name: str) -> None:
    """Not through the family's callable: multiply what the file says."""
    acc, gpu = GPUS[name], gpu_of(GPUS[name])
    for number_format, rate in gpu.simt.rates.items():
        lanes = gpu.sm.count * gpu.sm.clock_hz * rate
        clock = gpu.sm.clock_hz if number_format == "fp64" else gpu.sm.matrix_clock_hz
        cores = gpu.sm.count * clock * gpu.tensor.macs_per_clk(number_format)
        assert acc.peak_ops_per_s(number_format) == pytest.approx(2 * max(lanes, cores))
    if "int8" in acc.rates:
        assert acc.rate("uint8") == acc.rate("int8") == acc.rate("uint8", "int8")


@every_gpu
def test_an_sm_makes_sense(name: str) -> None:
    acc, gpu = GPUS[name], gpu_of(GPUS[name])
    sm, l2 = gpu.sm, gpu.l2
    assert sm.registers_bytes == 256 * 1024 and sm.max_warps in (32, 48, 64) and 16 <= sm.max_ctas <= 32
    assert sm.max_shared_per_cta_bytes + sm.shared_reserved_bytes <= sm.shared_bytes
    assert not sm.tensor_clock_hz or sm.tensor_clock_hz < sm.clock_hz
    assert l2.bytes_per_clk * sm.clock_hz > acc.dram.bandwidth_bytes_per_s, "the L2 is faster than the DRAM"
    assert l2.bytes_per_clk <= sm.count * sm.l2_bytes_per_clk * 1.01, "no faster than the SMs can take"
    assert sm.shared_latency_cycles < l2.latency_cycles < acc.dram.latency_s * sm.clock_hz * 1.35
    assert gpu.launch.graph_s < gpu.launch.stream_s < 3e-5
    tensor, simt = gpu.tensor.rates.get("fp16", 0), gpu.simt.rates["fp32"]
    assert tensor == 0 or tensor >= 2 * simt
    assert all(half >= gpu.tensor.rates[f] for f, half in gpu.tensor.half_accumulate.items())
    assert acc.architecture


@every_gpu
def test_the_arithmetic_profile_exists(name: str) -> None:
    acc = GPUS[name]
    if gpu_of(acc).tensor.count:
        assert architecture(acc.numerics.profile)
    else:
        assert not acc.numerics.profile and acc.architecture in ("maxwell", "pascal")


@every_mode
def test_a_mode_gives_no_more_than_the_board(target: str) -> None:
    acc, name = load_accelerator(target), target.partition(":")[0]
    top = GPUS[name]
    assert acc.target == target
    if name.startswith("jetson-orin-nx"):  # its super modes came with later software
        top = load_accelerator(f"{name}:maxn-super")
    mine, best = gpu_of(acc), gpu_of(top)
    assert mine.sm.count <= best.sm.count and mine.sm.clock_hz <= best.sm.clock_hz
    assert acc.dram.bandwidth_bytes_per_s <= top.dram.bandwidth_bytes_per_s
    assert acc.dram.capacity_bytes <= top.dram.capacity_bytes
    assert mine.dla.count == best.dla.count and mine.dla.clock_hz <= best.dla.clock_hz
    assert (acc.power.tdp_w or 0) <= (top.power.tdp_w or 0)
    assert mine.l2.bytes_per_clk * mine.sm.clock_hz > acc.dram.bandwidth_bytes_per_s


@pytest.mark.parametrize("name", [n for n, acc in GPUS.items() if any("g." in m for m in acc.modes)])
def test_mig_slices_are_parts_of_the_card(name: str) -> None:
    whole = GPUS[name]
    one, rest = (load_accelerator(f"{name}:{whole.modes[i]}") for i in (0, -1))
    eighth = 4 if name == "a30" else 8
    assert gpu_of(one).sm.count * (eighth - (eighth == 8)) <= gpu_of(whole).sm.count
    assert one.dram.bandwidth_bytes_per_s * eighth == pytest.approx(whole.dram.bandwidth_bytes_per_s, rel=0.001)
    assert one.dram.capacity_bytes * eighth <= whole.dram.capacity_bytes * 1.001
    assert gpu_of(one).l2.capacity_bytes * eighth == gpu_of(whole).l2.capacity_bytes
    assert rest.dram.bandwidth_bytes_per_s == pytest.approx(whole.dram.bandwidth_bytes_per_s, rel=0.001)
    for mode in whole.modes:  # 1g.10gb: ten gigabytes, rounded down by their maker
        gigabytes = float(mode.split(".")[1].removesuffix("gb"))
        assert load_accelerator(f"{name}:{mode}").dram.capacity_bytes / 2**30 == pytest.approx(gigabytes, rel=0.05)


def test_mig_slices_of_measured_rows_exist() -> None:
    for target in ("a100-sxm4-80gb:1g.10gb", "a100-sxm4-40gb:1g.5gb", "a30:1g.6gb"):
        assert gpu_of(load_accelerator(target)).sm.count == 14


@pytest.mark.parametrize("target", [*JETSONS, *(f"{n}:{m}" for n in JETSONS for m in GPUS[n].modes)])
def test_jetson_bandwidth_is_the_memory_controllers(target: str) -> None:
    acc = load_accelerator(target)
    soc = gpu_of(acc).soc
    assert soc.unified and soc.emc_clock_hz and soc.bus_bits and soc.cpu and soc.cpu_cores
    assert acc.dram.bandwidth_bytes_per_s == pytest.approx(2 * soc.emc_clock_hz * soc.bus_bits / 8, rel=0.001)


@pytest.mark.parametrize("target", [*JETSONS, "jetson-orin-nx-16gb:maxn-super", "jetson-orin-nx-8gb:maxn-super"])
def test_marketed_tops_are_sparse_int8_of_gpu_and_dla(target: str) -> None:
    acc = load_accelerator(target)
    gpu, told = gpu_of(acc), acc.published
    if told.sparse_int8 is None:
        assert not gpu.tensor.sparsity or "thor" in target
        return
    graphics = 2 * acc.peak_ops_per_s("int8")
    dla = 2 * 2 * gpu.dla.count * gpu.dla.macs_per_s("int8")
    assert graphics + dla == pytest.approx(told.sparse_int8, rel=0.03)
    assert dla == pytest.approx(told.sparse_int8_dla or 0.0, rel=0.03)


@pytest.mark.parametrize(
    ("target", "graphics", "dla"),
    [("maxn", 171, 105), ("50w", 109, 92), ("30w", 41, 90), ("15w", 14, 40)],
)
def test_agx_orin_modes_against_nvidias_table(target: str, graphics: float, dla: float) -> None:
    """NVIDIA/Deep-Learning-Accelerator-SW README; its 15 W GPU figure is two TPCs', where nvpmodel leaves three."""
    acc = load_accelerator(f"jetson-agx-orin-64gb:{target}")
    engines = gpu_of(acc).dla
    assert 4 * engines.count * engines.macs_per_s("int8") == pytest.approx(dla * 1e12, rel=0.03)
    share = 2 / 3 if target == "15w" else 1
    assert 2 * acc.peak_ops_per_s("int8") * share == pytest.approx(graphics * 1e12, rel=0.05)


def test_what_jetsons_lack() -> None:
    for name in ("jetson-nano", "jetson-tx1", "jetson-tx2"):
        acc = GPUS[name]
        assert acc.rate("int8") == 0 and acc.rate("fp16") == 2 * acc.rate("fp32") and not gpu_of(acc).dla.count
    for name in ("jetson-agx-xavier", "jetson-xavier-nx"):
        gpu = gpu_of(GPUS[name])
        assert not gpu.tensor.sparsity and not gpu.dla.sparsity and gpu.tensor.rates["int8"] == 1024
    assert gpu_of(GPUS["jetson-orin-nano"]).dla.count == 0 and gpu_of(GPUS["jetson-orin-nx-8gb"]).dla.count == 1


def test_orin_has_the_tensor_rate_of_ga100_and_geforce_half_that_of_professional_cards() -> None:
    def rate(name: str) -> float:
        return gpu_of(GPUS[name]).tensor.rates["fp16"]

    assert rate("jetson-agx-orin-64gb") == rate("a100-sxm4-80gb") == 2 * rate("a10")
    assert rate("a10") == 2 * rate("rtx-3090") and rate("l40s") == 2 * rate("rtx-4090")
    assert gpu_of(GPUS["rtx-3090"]).tensor.macs_per_clk("fp16", "fp16") == rate("a10")
    assert gpu_of(GPUS["a10"]).tensor.macs_per_clk("fp16", "fp16") == rate("a10")


def test_formats_come_with_their_generation() -> None:
    def has(number_format: str) -> set[str]:
        return {acc.architecture for acc in GPUS.values() if acc.rate(number_format) > 0}

    assert has("e4m3") == {"ada", "hopper", "blackwell", "blackwell-gb20x", "blackwell-gb10b"}
    assert has("e2m1") == {"blackwell", "blackwell-gb20x", "blackwell-gb10b"}
    assert "turing" not in has("bf16") and "ampere-ga100" in has("bf16") and "hopper" not in has("int4")


def test_sections_of_another_family_are_refused() -> None:
    with pytest.raises(HwsimError, match="has no"):
        gpu_of(ALL["tpu-v4"])


@pytest.mark.parametrize("name", ["a100-sxm4-80gb", "jetson-agx-orin-64gb"])
def test_a_device_states_little_beyond_its_data_sheet(name: str) -> None:
    """Microarchitecture belongs to the chip, which devices share."""
    own = {p for p, v in GPUS[name].values.items() if v.file.endswith(f"/{name}.toml")}
    assert not {p for p in own if p.startswith(("tensor.", "simt.", "launch.")) or "latency" in p.split(".")[-1]} - {
        "interconnect.hop_latency"
    }


def test_a_new_device_is_one_file(tmp_path: Path) -> None:
    file = tmp_path / "a10-plus.toml"
    file.write_text(
        'name = "A10+"\nbased_on = "ga10x"\ndescription = "A card nobody sells."\n'
        '[sm]\ncount = [84, "data sheet"]\nclock = ["1.8 GHz", "data sheet"]\n'
        '[memory.dram]\ncapacity = ["48 GiB", "data sheet"]\nbandwidth = ["768 GB/s", "data sheet"]\n'
        '[power]\ntdp = ["200 W", "data sheet"]\n'
    )
    acc: Accelerator = load_accelerator(file)
    assert acc.peak_ops_per_s("fp16") == pytest.approx(154.8e12, rel=0.001)
    with pytest.raises(HwsimError, match=r"sm.tensor_clok: no such key; did you mean tensor_clock"):
        load_accelerator(
            _broken(tmp_path, file, '[sm]\ncount = [84, "data sheet"]', '[sm]\ntensor_clok = [1, "x y z"]')
        )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('[sm]\nmax_shared_per_cta = ["100 KiB", "data sheet"]', "sm.max_shared_per_cta: with shared_reserved"),
        ('[l2]\nfar_latency = [10, "data sheet"]', "l2.far_latency: is less than latency"),
        ('[dla]\ncount = [2, "data sheet"]', "dla: count and"),
        ('[l2]\nsegments = [7, "data sheet"]', "l2.segments: do not divide"),
    ],
)
def test_contradictions_of_a_gpu_are_refused(tmp_path: Path, section: str, words: str) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(f'name = "odd"\nbased_on = "a10"\n{section}\n')
    with pytest.raises(HwsimError, match=words):
        load_accelerator(file)


def _broken(folder: Path, file: Path, old: str, new: str) -> Path:
    text = file.read_text(encoding="utf-8")
    assert old in text
    out = folder / "broken.toml"
    out.write_text(text.replace(old, new))
    return out
