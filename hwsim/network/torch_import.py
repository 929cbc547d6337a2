"""PyTorch programs as networks: `from_torch` for modules and exported programs, `from_pt2` for saved ones.

`from_torch` needs the extra ``torch`` (authoring time only; shipped traces and runs do not import it): shapes come from
`torch.export`, which traces a module on the meta device without allocating its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from hwsim.errors import HwsimError
from hwsim.network.graph import Network
from hwsim.network.torch_convert import convert
from hwsim.network.torch_graph import graph_of

Inputs: TypeAlias = "tuple[Any, ...] | Mapping[str, Any]"


def from_torch(source: Any, *, args: Inputs | None = None, name: str | None = None) -> Network:
    """Return the network of a torch module or `torch.export.ExportedProgram`.

    ``args`` are example inputs, in order or by keyword: tensors, or shapes as tuples of integers for float inputs; a
    module that states its input size the way timm does may leave them out. Raises HwsimError when torch is missing,
    when the module cannot be exported (data-dependent control flow), or for an operator without a hwsim equivalent,
    naming its module path.
    """
    label = name or _name_of(source)
    if hasattr(source, "graph_signature") and hasattr(source, "graph"):
        return convert(graph_of(source), label)
    if not hasattr(source, "forward") or not hasattr(source, "eval"):
        raise HwsimError(
            f"cannot load a network from a {type(source).__name__}; "
            "give a name, a path, a torch module or an exported program"
        )
    return convert(graph_of(_export(source, args, label)), label)


def _name_of(source: Any) -> str:
    module = getattr(source, "module", None)
    owner = module() if callable(module) and hasattr(source, "graph_signature") else source
    text = type(owner).__name__.lower()
    return text if text not in ("graphmodule", "interpretermodule") else "torch_model"


def _export(module: Any, args: Inputs | None, label: str) -> Any:
    try:
        import torch
    except ImportError:
        raise HwsimError("reading a torch module needs PyTorch: pip install 'hwsim[torch]'") from None
    if args is None:
        config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
        size = config.get("input_size") if isinstance(config, dict) else None
        if size is None:
            raise HwsimError(f"{label}: give example inputs, e.g. from_torch(model, args=((1, 3, 224, 224),))")
        args = ((1, *size),)
    first = next(iter(module.parameters()), None)
    device = "meta" if first is None else first.device

    def tensor(value: Any) -> Any:
        return torch.empty(value, device=device) if isinstance(value, tuple) else value

    by_name = {k: tensor(v) for k, v in args.items()} if isinstance(args, Mapping) else {}
    in_order = () if isinstance(args, Mapping) else tuple(tensor(a) for a in args)
    training = bool(module.training)
    try:
        with torch.no_grad():
            module.eval()
            return torch.export.export(module, in_order, by_name)
    except Exception as error:
        if isinstance(error, KeyboardInterrupt | MemoryError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise HwsimError(f"{label}: torch.export cannot trace it ({type(error).__name__}: {reason})") from None
    finally:
        module.train(training)


def from_pt2(path: str | Path, *, name: str | None = None) -> Network:
    """Return the network of a program saved by `torch.export.save`; torch is not needed and nothing is unpickled.

    Raises HwsimError for a file that is no such program, and as `from_torch` does.
    """
    from hwsim.network.torch_pt2 import read_pt2

    file = Path(path)
    return convert(read_pt2(file), name or file.stem)
