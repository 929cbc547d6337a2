"""Language models exported without a key/value cache, given one, so that they have a decode phase."""

from __future__ import annotations

import re
from dataclasses import replace

from hwsim.network.graph import Layer, Network

PAST, LENGTH = "P", "S"
_TOKENS = re.compile(r"(\d{1,8})\b")


def own_context(net: Network) -> int:
    """Return the most tokens the model behind ``net`` was made for, as its trace states; 0 where it does not."""
    found = _TOKENS.match(net.meta.get("context", ""))
    return int(found[1]) if found else 0


def keeps_cache(net: Network) -> bool:
    """Return whether ``net`` keeps keys and values of earlier tokens."""
    return any(layer.op == "attention" and "cache" in layer.attrs for layer in net.layers)


def with_cache(net: Network) -> Network | None:
    """Return ``net`` with a past of P tokens behind every attention; ``net`` itself where it has one.

    None where that would not be the same model: attention that looks ahead, or at another sequence, sees more than the
    past. Only symbolic networks can be given a past.
    """
    if PAST in net.symbols:
        return net
    found = [layer for layer in net.layers if layer.op == "attention"]
    if LENGTH not in net.symbols or not found or not all(_looks_back(net, layer) for layer in found):
        return None
    layers = tuple(
        replace(layer, attrs={**layer.attrs, "cache": PAST}) if layer.op == "attention" else layer
        for layer in net.layers
    )
    return replace(net, layers=layers, symbols={**net.symbols, PAST: 0})


def _looks_back(net: Network, layer: Layer) -> bool:
    """Whether an attention is causal over the sequence itself, without a mask of a fixed size."""
    lengths = {str(net.tensors[name].shape[-2]) for name in layer.src[:3]}
    return bool(layer.attrs.get("causal")) and len(layer.src) == 3 and lengths == {LENGTH}
