"""Which ATen operator is which hwsim operator: the tables of the PyTorch importer (no torch needed)."""

from __future__ import annotations

from collections.abc import Mapping

# Operators that return their first argument under another name or type.
SAME: frozenset[str] = frozenset((
    "contiguous", "clone", "detach", "alias", "dropout", "feature_dropout", "alpha_dropout", "native_dropout",
    "to", "_to_copy", "type_as", "lift_fresh_copy", "lift_fresh", "requires_grad", "positive", "resolve_conj",
    "resolve_neg", "real", "_to_cpu", "float", "half", "bfloat16", "double", "cpu", "cuda",
    "_autocast_to_reduced_precision", "_autocast_to_full_precision",
))  # fmt: skip
# Operators without a value hwsim needs.
IGNORE: frozenset[str] = frozenset((
    "_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size",
    "sym_constrain_range", "sym_size", "_set_grad_enabled", "_enter_autocast", "_exit_autocast",
))  # fmt: skip
RESHAPE: frozenset[str] = frozenset((
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as", "squeeze", "unsqueeze",
    "_reshape_alias", "atleast_1d", "atleast_2d",
))  # fmt: skip
PERMUTE: frozenset[str] = frozenset((
    "permute", "transpose", "t", "numpy_T", "mT", "movedim", "moveaxis", "swapaxes", "swapdims",
    "transpose_copy", "permute_copy",
))  # fmt: skip

SPLIT: frozenset[str] = frozenset((
    "split", "split_with_sizes", "chunk", "unbind", "unsafe_split", "unsafe_chunk", "tensor_split",
))  # fmt: skip
EXPAND: frozenset[str] = frozenset(("expand", "expand_as", "broadcast_to"))
PAD: frozenset[str] = frozenset(("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d"))
GATHER: frozenset[str] = frozenset(("index", "gather", "index_select"))
CONV: frozenset[str] = frozenset((
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution",
    "_convolution",
))  # fmt: skip
RECURRENT: frozenset[str] = frozenset(("lstm", "gru", "rnn_tanh", "rnn_relu"))
LAYER_NORM: frozenset[str] = frozenset(("layer_norm", "native_layer_norm", "rms_norm"))
BATCH_NORM: frozenset[str] = frozenset(("batch_norm", "_native_batch_norm_legit_no_training"))

UNARY: Mapping[str, str] = {
    "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "silu": "silu", "mish": "mish", "tanh": "tanh",
    "hardswish": "hswish", "hardsigmoid": "hsigmoid", "leaky_relu": "leaky_relu", "elu": "elu", "selu": "selu",
    "softplus": "softplus", "exp": "exp", "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt", "reciprocal": "reciprocal",
    "erf": "erf", "sin": "sin", "cos": "cos", "neg": "neg", "abs": "abs", "sign": "sign", "floor": "floor",
    "ceil": "ceil", "round": "round", "square": "square", "logical_not": "not", "bitwise_not": "not",
    "clamp": "clip", "clamp_min": "clip", "clamp_max": "clip", "isnan": "is_nan", "nan_to_num": "is_nan",
    "softsign": "softsign",
}  # fmt: skip
BINARY: Mapping[str, str] = {
    "add": "add", "sub": "sub", "rsub": "sub", "mul": "mul", "multiply": "mul", "div": "div", "divide": "div",
    "true_divide": "div", "pow": "pow", "maximum": "maximum", "minimum": "minimum", "eq": "equal", "ne": "not_equal",
    "gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal", "logical_and": "and", "logical_or": "or",
    "bitwise_and": "and", "bitwise_or": "or", "remainder": "mod", "fmod": "mod", "floor_divide": "floor_div",
    "atan2": "atan2",
}  # fmt: skip
REDUCE: Mapping[str, str] = {
    "mean": "reduce_mean", "sum": "reduce_sum", "amax": "reduce_max", "amin": "reduce_min", "prod": "reduce_prod",
    "any": "reduce_any", "all": "reduce_all", "argmax": "arg_max", "argmin": "arg_min", "var": "reduce_var",
    "max": "reduce_max", "min": "reduce_min", "logsumexp": "reduce_logsumexp", "linalg_vector_norm": "reduce_l2",
    "norm": "reduce_l2",
}  # fmt: skip
SOFTMAX: Mapping[str, str] = {
    "softmax": "softmax", "_softmax": "softmax", "log_softmax": "log_softmax", "_log_softmax": "log_softmax",
    "cumsum": "cumsum",
}  # fmt: skip
POOL: Mapping[str, str] = {
    **{f"max_pool{d}d{tail}": "max_pool" for d in (1, 2, 3) for tail in ("", "_with_indices")},
    **{f"avg_pool{d}d": "avg_pool" for d in (1, 2, 3)},
}
ADAPTIVE: Mapping[str, str] = {
    **{f"{lead}adaptive_{kind}_pool{d}d": f"adaptive_{kind}_pool" for d in (1, 2, 3) for kind in ("avg", "max")
       for lead in ("", "_")},
}  # fmt: skip
RESIZE: Mapping[str, str] = {
    "upsample_nearest1d": "nearest", "upsample_nearest2d": "nearest", "upsample_nearest3d": "nearest",
    "_upsample_nearest_exact2d": "nearest", "upsample_bilinear2d": "bilinear", "_upsample_bilinear2d_aa": "bilinear",
    "upsample_trilinear3d": "trilinear", "upsample_linear1d": "linear", "upsample_bicubic2d": "bicubic",
    "_upsample_bicubic2d_aa": "bicubic",
}  # fmt: skip
# Made of two position vectors, these compare a query's place with a key's: a mask of them is causal.
ORDER: frozenset[str] = frozenset((
    "le", "ge", "lt", "gt",
))  # fmt: skip
TRIANGLE: frozenset[str] = frozenset((
    "tril", "triu",
))  # fmt: skip
# Makers of constants: no tensor argument, or only its shape matters.
MAKERS: frozenset[str] = frozenset((
    "zeros", "ones", "full", "empty", "arange", "zeros_like", "ones_like", "full_like", "empty_like",
    "new_zeros", "new_ones", "new_full", "new_empty", "scalar_tensor", "linspace", "eye", "tensor", "rand",
    "randn", "rand_like", "randn_like",
))  # fmt: skip
UNIFORM: frozenset[str] = frozenset((
    "zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros",
    "new_ones", "new_full", "new_empty",
))  # fmt: skip

# Modules that are one layer: their path alone names it.
LEAF_MODULES: tuple[str, ...] = (
    "torch.nn.modules.conv.", "torch.nn.modules.linear.", "torch.nn.modules.batchnorm.", "torch.nn.modules.pooling.",
    "torch.nn.modules.normalization.", "torch.nn.modules.activation.", "torch.nn.modules.sparse.",
    "torch.nn.modules.upsampling.", "torch.nn.modules.dropout.", "torch.nn.modules.instancenorm.",
)  # fmt: skip
