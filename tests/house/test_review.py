"""What a reviewer broke once, from outside: wrong inputs, odd files, misuse from Python, and numbers that must hold."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hwsim
from hwsim.cli import main
from hwsim.errors import HwsimError
from hwsim.files import write_whole
from hwsim.network.builder import Builder

HEAD = "# layertrace: 2\n# model: small\n# symbols: N=1\n# input: x fp32[Nx4x4]\nid,name,op,src,out,attrs,fused\n"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must end in one line and exit code 2; return the line."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("hwsim: ")
    return err


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--shapes", "S=²"], "S=384"),
        (["--shapes", "=4"], "S=384"),
        (["--shapes", "S=" + "9" * 5000], "S=384"),
        (["--shapes", "S=1,S=2"], "twice"),
        (["--json", ""], "no file name"),
        (["--json", "."], "no file name"),
        (["--json", "nowhere/out.json"], "no folder"),
        (["--json", "-", "--csv", "-"], "own file"),
        (["--json", "same.txt", "--csv", "./same.txt"], "own file"),
        (["--layers", "--top", "3"], "--top"),
        (["--precision", "zzz*=int8"], "matches 'zzz*'"),
        (["--precision", "feature*=int8,classifer*=bf16"], "classifier"),
        (["--precision", "=int8"], "matches ''"),
    ],
)
def test_options_that_cannot_work_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, "run", "alexnet", "--on", "tpu-v3", *more)
    assert list(tmp_path.iterdir()) == []


def test_names_too_long_for_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a" * 5000, "a" * 5000 + ".onnx", "a/" * 3000):
        assert len(refused(capsys, "run", name, "--on", "tpu-v3")) < 12_000
        refused(capsys, "run", "alexnet", "--on", name)


def test_a_file_below_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    assert "no folder" in refused(capsys, "run", "alexnet", "--on", "tpu-v3", "--csv", str(tmp_path / "plain" / "x"))
    assert "no folder" in refused(capsys, "import", "alexnet", "-o", str(tmp_path / "plain" / "x"))


def test_a_machine_has_no_batch(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--batch" in refused(capsys, "show", "tpu-v3", "--batch", "4")


def test_a_network_of_views_has_nothing_to_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "views.layers.csv"
    trace.write_text(HEAD + "1,r,reshape,x,Nx16,,\n")
    assert "nothing to run" in refused(capsys, "run", str(trace), "--on", "tpu-v4")


def test_special_files_are_no_networks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "not a regular file" in refused(capsys, "run", str(tmp_path / "pipe.csv"), "--on", "tpu-v3")


def test_a_device_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "whole\n")
    assert os.read(reader, 100) == b"whole\n" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def _shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    text = command.replace("hwsim", f"{sys.executable} -m hwsim", 1)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", text], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_output_that_goes_nowhere() -> None:
    gone = _shell("hwsim list networks | head -1")
    assert (gone.returncode, gone.stderr) == (0, "") and len(gone.stdout.splitlines()) == 1
    if Path("/dev/full").exists():
        full = _shell("hwsim list networks > /dev/full")
        assert full.returncode == 2 and len(full.stderr.splitlines()) == 1 and "space" in full.stderr


def test_names_the_terminal_cannot_print(tmp_path: Path) -> None:
    trace = tmp_path / "ünï cödé.layers.csv"
    trace.write_text(HEAD.replace("small", "größe") + "1,ärger,relu,x,Nx4x4,,\n", encoding="utf-8")
    done = _shell(f"hwsim run '{trace}' --on tpu-v3", PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert (done.returncode, done.stderr) == (0, "") and "\\xe4rger" in done.stdout


# -- Python ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"batch": True}, {"batch": None}, {"batch": 1.0}, {"batch": "8"}, {"precision": 5}, {"precision": ("int8",)},
        {"precision": b"int8"}, {"precision": {"*": None}}, {"precision": {5: "int8"}}, {"precision": {"nope": "int8"}},
        {"shapes": {1: 2}}, {"shapes": {"S": True}}, {"phase": []}, {"context": 1.5}, {"sparsity": 5}, {"stack": 5},
        {"cache": "hot"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_one_clear_error(options: dict[str, object]) -> None:
    with pytest.raises(HwsimError) as caught:
        hwsim.simulate("bert_base", "tpu-v4", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and next(iter(options)) in str(caught.value)


@pytest.mark.parametrize("network", [None, 5, b"alexnet", object(), np.zeros(3)], ids=lambda v: type(v).__name__)
def test_what_is_no_network(network: object) -> None:
    with pytest.raises(HwsimError, match="network"):
        hwsim.simulate(network, "tpu-v4")


@pytest.mark.parametrize("padding", [-1, "same", (1, 1), True, None])
def test_padding_is_a_size(padding: object) -> None:
    with pytest.raises(HwsimError, match="padding"):
        hwsim.conv2d(n=1, c=3, h=8, w=8, k=8, r=3, s=3, padding=padding)  # type: ignore[arg-type]


def test_every_activation_of_a_product_is_quantised() -> None:
    def quantised(**sizes: int) -> int:
        net = hwsim.matmul(64, 64, 64, quantize_activations=True, **sizes)
        return [layer.op for layer in net.layers].count("quantize")

    assert (quantised(), quantised(batch=3)) == (1, 2)


def test_scalesim_is_there_without_importing_it() -> None:
    code = "import hwsim; assert callable(hwsim.scalesim.run) and 'scalesim' in dir(hwsim)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_that_cannot_be_written() -> None:
    for path in (5, b"", "", ".", "x\0y", None):
        with pytest.raises(HwsimError):
            write_whole(path, "")  # type: ignore[arg-type]


# -- what does not fit -----------------------------------------------------------------------------------------------


def test_advice_about_memory_is_true() -> None:
    with pytest.raises(HwsimError, match=r"batch [0-9]+ per program would fit") as caught:
        hwsim.simulate("alexnet", "tpu-v3-core", batch=2**20)
    fits = int(str(caught.value).split("batch ")[1].split()[0])
    hwsim.simulate("alexnet", "tpu-v3-core", batch=fits)
    with pytest.raises(HwsimError, match="does not fit"):
        hwsim.simulate("alexnet", "tpu-v3-core", batch=fits + 1)
    with pytest.raises(HwsimError, match="the weights alone"):
        hwsim.simulate("gpt3_175b", "tpu-v4", precision="bf16")
    with pytest.raises(HwsimError, match="shorter input"):
        hwsim.simulate("bert_base", "tpu-v4", precision="bf16", shapes={"S": 2**24})


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["tpu-v4", "tpu-v3-core", "tpu-v5p"])
def test_prefill_leaves_its_keys_and_values_in_memory(machine: str) -> None:
    result = hwsim.simulate("llama3.2_1b", machine, precision="bf16", phase="prefill", context=256)
    written = sum(k["dram_write_bytes"] for k in result.kernels)
    cache = 16 * 2 * 8 * 64 * 256 * 2  # layers, keys and values, heads, depth, tokens, bytes
    assert result.plan.cache_bytes == cache and written >= cache + 128256 * 2  # and the logits of one token


def test_attention_without_a_cache_keeps_its_operands_on_the_chip() -> None:
    net = Builder("attend")
    x = net.input("x", (1, 8, 128, 64))
    q, k, v = (net.op("relu", net.op("scale", x), name=name) for name in "qkv")
    result = hwsim.simulate(net.build(net.op("attention", q, k, v)), "tpu-v4", precision="bf16")
    assert result.kernels[-1]["dram_read_bytes"] == 0


def test_a_gate_is_not_multiplied_inside_the_product_that_makes_it() -> None:
    net = Builder("gate")
    x = net.input("x", (1, 64, 56, 56))
    y = net.op("relu", net.conv(x, 64, 3, 1, 1))
    gate = net.op("sigmoid", net.conv(net.global_pool(y), 64, 1))
    kernels = hwsim.simulate(net.build(net.op("mul", y, gate)), "tpu-v3-core", precision="bf16").kernels
    assert [k["op"] for k in kernels] == ["conv", "adaptive_avg_pool", "conv", "mul"]
    feature_map = 64 * 56 * 56 * 2
    assert kernels[2]["dram_write_bytes"] == 64 * 2
    assert kernels[3]["dram_write_bytes"] == feature_map < kernels[3]["dram_read_bytes"]


@pytest.mark.parametrize("machine", ["scalesim-8x8-is", "scalesim-128x128-os", "eyeriss-like"])
def test_small_scratchpads_run_squeeze_and_excite(machine: str) -> None:
    precision = "int16" if machine == "eyeriss-like" else "int8"
    result = hwsim.simulate("regnet_y_400mf", machine, precision=precision)
    assert result.bound_s <= result.latency_s * (1 + 1e-9)


def test_names_in_files_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "escape.layers.csv"
    trace.write_text(HEAD.replace("small", "sm\x1ball" + "x" * 5000) + "1,\x1b[31mred\x07,relu,x,Nx4x4,,\n")
    assert main(["run", str(trace), "--on", "tpu-v4", "--detail"]) == 0
    assert main(["show", str(trace)]) == 0
    out = capsys.readouterr().out
    assert "?[31mred?" in out and "\x1b" not in out and "\x07" not in out
    assert max(len(line) for line in out.splitlines()) < 400
    trace.write_text(HEAD + "1,\x1b[31mred,relu,nowhere\x1b[0m,Nx4x4,,\n")
    assert "\x1b" not in refused(capsys, "run", str(trace), "--on", "tpu-v4")


def test_time_grows_with_the_network_and_not_with_its_square() -> None:
    """Views, slices and transposes of one tensor: a step that looked at all of them for each would take minutes."""
    count = 3000
    rows = ["1,r,relu,x,Nx4x4,,"]
    for i in range(2, count):
        rows += [f"{i},v,reshape,1,Nx16,,", f"{count + i},a,relu,{i},Nx16,,"]
        rows += [f"{2 * count + i},s,slice,1,Nx1x4,axis=1 start=0,", f"{3 * count + i},b,relu,{2 * count + i},Nx1x4,,"]
    from hwsim.network.trace import parse_trace

    net = parse_trace(HEAD + "\n".join(rows) + "\n")
    before = os.times().user
    assert len(hwsim.simulate(net, "tpu-v4", precision="bf16").kernels) == 2 * (count - 2) + 1
    assert os.times().user - before < 8


def test_scalesim_reads_regular_files_only(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    config = tmp_path / "ok.cfg"
    config.write_text(
        "[architecture_presets]\nArrayHeight: 8\nArrayWidth: 8\nIfmapSramSzkB: 8\nFilterSramSzkB: 8\nOfmapSramSzkB: 8\n"
        "IfmapOffset: 0\nFilterOffset: 10000000\nOfmapOffset: 20000000\nDataflow: ws\nBandwidth: 10\n"
        "[run_presets]\nInterfaceBandwidth: CALC\n"
    )
    for given in (("pipe", "pipe"), ("ok.cfg", "pipe")):
        assert main(["scalesim", "-c", str(tmp_path / given[0]), "-t", str(tmp_path / given[1])]) == 2
        assert "not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(1, 8, 512, 512), (2, 1, 512, 512), (2, 8, 1, 512), (1, 1, 512, 512)])
@pytest.mark.parametrize("through", ["", "expand", "slice"])
def test_masks_and_biases_of_attention_are_read(shape: tuple[int, ...], through: str) -> None:
    def read(masked: bool) -> int:
        net = Builder("masked")
        q, k, v = (net.input(name, (2, 8, 512, 64)) for name in "qkv")
        if not masked:
            return _read(net.build(net.op("attention", q, k, v)))
        bias = net.input("bias", (*shape[:3], 1024) if through == "slice" else shape)
        if through == "expand":
            bias = net.op("expand", bias, out=(2, 8, 512, 512))
        elif through == "slice":
            bias = net.split(bias, 3, 0, 512)
        return _read(net.build(net.op("attention", q, k, v, bias)))

    extra = read(True) - read(False)
    assert int(np.prod(shape)) * 2 <= extra <= int(np.prod(shape)) * 2 + 64 * 1024


def _read(net: hwsim.Network) -> int:
    return int(hwsim.simulate(net, "tpu-v3-core", precision="bf16").kernels[-1]["dram_read_bytes"])


def test_an_opaque_operator_is_said_or_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "compiled.layers.csv"
    trace.write_text(HEAD + "1,all,custom,x,Nx1000,code=edgetpu-custom-op,\n")
    assert "compiled for the Edge TPU" in refused(capsys, "run", str(trace), "--on", "tpu-v4")
    trace.write_text(HEAD + "1,all,custom,x,Nx1000,code=RFFT2D,\n")
    assert main(["run", str(trace), "--on", "tpu-v4"]) == 0
    assert "operator RFFT2D (all) is unknown" in capsys.readouterr().out


def test_residuals_are_read_at_the_read_bandwidth() -> None:
    result = hwsim.simulate("resnet50_v1", "scalesim-128x128-os", batch=3, precision="int8")
    assert result.bound_s <= result.latency_s


@pytest.mark.parametrize(
    ("network", "machine", "batch", "precision"),
    [
        ("unet_3d_brats", "tpu-v6e", 1, "bf16"),
        ("deeplabv3_resnet50", "tpu-v3", 2, "fp32"),
        ("unet", "tpu-v4", 2, "bf16"),
    ],
)
def test_windows_do_not_read_their_operands_over_and_over(
    network: str, machine: str, batch: int, precision: str
) -> None:
    result = hwsim.simulate(network, machine, batch=batch, precision=precision)
    for kernel, row in zip(result.plan.kernels, result.kernels, strict=True):
        if kernel.kind == "matmul":
            operands = kernel.weight_bytes + kernel.input_bytes
            assert row["dram_read_bytes"] <= 16 * operands + 2**20, row["name"]


def test_a_plan_answers_only_its_own_question() -> None:
    plan = hwsim.simulate("alexnet", "tpu-v4", precision="bf16").plan
    for other in ({"batch": 64, "precision": "bf16"}, {"precision": "int8"}):
        with pytest.raises(HwsimError, match="plan is for"):
            hwsim.simulate("alexnet", "tpu-v4", plan=plan, **other)
    with pytest.raises(HwsimError, match="plan must be"):
        hwsim.simulate("alexnet", "tpu-v4", plan={})  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 7, 9, 100, 2047, 2049, 100_000])
def test_a_pod_does_the_work_of_its_batch(batch: int) -> None:
    result = hwsim.simulate("mobilenet_v2", "tpu-v3-pod", batch=batch, precision="bf16")
    assert result.macs == batch * hwsim.load_network("mobilenet_v2").macs
    totals = result.totals
    assert totals.used <= totals.programs == 2048 and totals.used * totals.share >= batch
    assert result.energy_j > result.energy.static.power_w.low * totals.programs * result.latency_s * 0.99
