"""Write ``models/README.md``: every trace with what it is, what it costs and where it comes from.

python studies/model_zoo/write_readme.py
"""

from __future__ import annotations

from pathlib import Path

from hwsim.network.load import list_networks

MODELS = Path(__file__).resolve().parents[2] / "models"

HEAD = """# Networks

One file a network: `NAME.layers.csv`, a layer trace (format: `hwsim/network/trace.py`). Shapes are symbolic: `N` is the
batch; language models have `S` new and `P` past tokens; detectors and some segmentation networks `H` and `W` (multiples
of 32). Multiply-accumulates, parameters and bytes are computed from the layers; the header's `macs` and `params` are
check sums at the symbols' default values. The files hold shapes only, no weights.

- **Hand-built** traces are written by `studies/model_zoo/build_all.py` from papers and published model descriptions;
  their headers say what is assumed. Published figures they must equal: `studies/model_zoo/published_built.csv`.
- **Exported** traces come from `studies/model_zoo/export_torch.py` (torchvision, timm, transformers, diffusers through
  torch.export); their published figures are in the headers.
- `hwsim/validate/measured_names.csv` says which trace stands for each name in the measured tables, and why a name
  has none.
- The layer shapes of the six `tpu1_*` applications were never published: they are reconstructions.
- Parameters count batch-norm scales and shifts and every embedding row once; a figure published for inference usually
  has them folded into biases. GMAC counts convolutions, matrix products, attention and recurrent cells, a causal mask
  not subtracted.

This table is written by `studies/model_zoo/write_readme.py`.
"""


def _kind(row: dict[str, object]) -> str:
    """The task without data set and details."""
    return str(row["task"]).partition(" (")[0].partition(":")[0].partition(",")[0]


def table() -> str:
    """The whole file."""
    rows = sorted(list_networks(), key=lambda r: (_kind(r).lower(), str(r["name"])))
    lines = ["| network | symbols | layers | GMAC | M parameters | source |", "|---|---|---|---|---|---|"]
    text, task = HEAD, ""
    for row in rows:
        if _kind(row) != task:
            task = _kind(row)
            text += f"\n## {task[:1].upper()}{task[1:]}\n\n" + "\n".join(lines) + "\n"
        cells = (row["name"], row["symbols"], row["layers"], row["gmacs"], row["mparams"], row["source"])
        text += "| " + " | ".join(str(c).replace("|", "/") for c in cells) + " |\n"
    return text


if __name__ == "__main__":
    (MODELS / "README.md").write_text(table(), encoding="utf-8")
