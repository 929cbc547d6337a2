"""Execute a whole ``.tflite`` file in one of its named integer semantics, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hwsim.arithmetic import tflite_contract as contract
from hwsim.arithmetic import tflite_move as move
from hwsim.arithmetic import tflite_pointwise as point
from hwsim.arithmetic import tflite_recurrent as recurrent
from hwsim.arithmetic import tflite_reduce as reduce
from hwsim.arithmetic import tflite_resize as resize
from hwsim.arithmetic.tflite_call import Budget, Call, Handler
from hwsim.arithmetic.tflite_fixed import Array
from hwsim.arithmetic.tflite_model import Model, load_model
from hwsim.arithmetic.tflite_semantics import Semantics, get_semantics
from hwsim.arithmetic.tflite_softmax import softmax
from hwsim.errors import HwsimError, near
from hwsim.network.tflite_file import TfOp

OPERATORS: Mapping[str, Handler] = {
    "CONV_2D": contract.conv_2d, "DEPTHWISE_CONV_2D": contract.depthwise_conv_2d,
    "FULLY_CONNECTED": contract.fully_connected, "TRANSPOSE_CONV": contract.transpose_conv,
    "ADD": point.add, "SUB": point.sub, "MUL": point.mul, "QUANTIZE": point.quantize, "DEQUANTIZE": point.dequantize,
    "LOGISTIC": point.logistic, "TANH": point.tanh, "RELU": point.relu(0.0, np.inf), "RELU6": point.relu(0.0, 6.0),
    "RELU_N1_TO_1": point.relu(-1.0, 1.0), "LEAKY_RELU": point.leaky_relu, "MAXIMUM": point.extremum(np.maximum),
    "MINIMUM": point.extremum(np.minimum), "SOFTMAX": softmax, "AVERAGE_POOL_2D": reduce.average_pool,
    "MAX_POOL_2D": reduce.max_pool, "MEAN": reduce.mean, "SUM": reduce.total, "REDUCE_MAX": reduce.extreme(np.max),
    "REDUCE_MIN": reduce.extreme(np.min), "ARG_MAX": reduce.arg(np.argmax), "ARG_MIN": reduce.arg(np.argmin),
    "RESHAPE": move.reshape, "SQUEEZE": move.squeeze, "EXPAND_DIMS": move.expand_dims, "TRANSPOSE": move.transpose,
    "PAD": move.pad, "PADV2": move.pad, "MIRROR_PAD": move.mirror_pad, "CONCATENATION": move.concatenation,
    "SLICE": move.slice_, "STRIDED_SLICE": move.strided_slice, "SPLIT": move.split, "SPLIT_V": move.split_v,
    "PACK": move.pack, "UNPACK": move.unpack, "GATHER": move.gather, "DEPTH_TO_SPACE": move.depth_to_space,
    "SPACE_TO_DEPTH": move.space_to_depth, "RESIZE_BILINEAR": resize.resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize.resize_nearest, "UNIDIRECTIONAL_SEQUENCE_LSTM": recurrent.lstm,
    "SVDF": recurrent.svdf,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TfliteResult:
    """Outputs in the file's order; ``tensors`` maps every tensor index to its value when intermediates were asked for."""

    outputs: tuple[Array, ...]
    tensors: Mapping[int, Array] = field(default_factory=dict)


def run_tflite(
    model: Model | str | os.PathLike[str] | bytes,
    inputs: Array | Sequence[Array] | Mapping[str, Array],
    *,
    semantics: str = "tflite-reference",
    intermediates: bool = False,
    outputs: Sequence[str | int] | None = None,
) -> TfliteResult:
    """Execute a TFLite model once, from fresh state.

    ``model`` is a path, the file's bytes, or a loaded `Model`; ``inputs`` one array, a sequence in the file's order, or a
    mapping by tensor name, with the file's shapes and types. ``semantics`` is ``tflite-reference``,
    ``tflite-optimized``, ``xnnpack`` or ``tflm``. ``outputs`` names other tensors (or gives their indices) to compute
    instead of the graph's outputs; operators they do not need are not executed, so that a custom operator at the end
    can be left out. Raises HwsimError in one line for damaged files, inputs that do not fit, custom operators and
    kernels that are not modelled, naming the operator and the tensor it makes.
    """
    return TfliteSession(model, semantics=semantics, outputs=outputs).run(inputs, intermediates=intermediates)


class TfliteSession:
    """A model kept ready for many runs; variable tensors (LSTM and SVDF state) live on from run to run."""

    def __init__(
        self,
        model: Model | str | os.PathLike[str] | bytes,
        *,
        semantics: str = "tflite-reference",
        outputs: Sequence[str | int] | None = None,
    ) -> None:
        self.semantics: Semantics = get_semantics(semantics)
        self.model = model if isinstance(model, Model) else load_model(model)
        self.state: dict[int, Array] = {}
        self.cache: dict[Any, Any] = {}
        if outputs is not None:
            self.model = _ending_at(self.model, outputs)
        self.last_use = _last_use(self.model)

    def run(
        self, inputs: Array | Sequence[Array] | Mapping[str, Array], *, intermediates: bool = False
    ) -> TfliteResult:
        """Execute once; see `run_tflite`."""
        model = self.model
        values = _bind(model, inputs)
        kept: dict[int, Array] = {}
        if intermediates:
            kept.update({t.index: t.data for t in model.tensors if t.data is not None})
            kept.update(values)
        budget = Budget()
        for position, op in enumerate(model.operators):
            call = Call(model, op, self.semantics, values, self.state, budget, self.cache)
            for index, value in zip(op.outputs, self._results(call), strict=False):
                if index < 0:
                    continue
                if value.dtype != model.tensors[index].dtype:
                    raise call.fail(f"makes {value.dtype} where the file states {model.tensors[index].kind}")
                values[index] = value
                if intermediates:
                    kept[index] = value
            for index in self.last_use.get(position, ()):
                values.pop(index, None)
        outputs = []
        for index in model.outputs:
            found = values.get(index, model.tensors[index].data if index >= 0 else None)
            if found is None:
                raise HwsimError(f"{model.source}: output tensor {index} is never computed")
            outputs.append(found)
        return TfliteResult(tuple(outputs), kept)

    def operator(self, op: TfOp, values: dict[int, Array]) -> Sequence[Array]:
        """Execute one operator of the model on given operand values (by tensor index); constants are the file's."""
        return self._results(Call(self.model, op, self.semantics, values, self.state, Budget(), self.cache))

    def _results(self, call: Call) -> Sequence[Array]:
        op = call.op
        if op.code == "CUSTOM":
            raise call.fail(f"custom operator {op.custom[:60]!r} has no public definition; cut the model before it")
        handler = OPERATORS.get(op.code)
        if handler is None:
            raise call.fail(f"this operator cannot be executed{near(op.code, OPERATORS)}")
        try:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                made = handler(call)
        except HwsimError as error:
            text = str(error)
            raise (error if text.startswith(self.model.source) else call.fail(text)) from None
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, MemoryError):
            raise call.fail("its operands and options contradict each other") from None
        return made if isinstance(made, (list, tuple)) else [made]


def _last_use(model: Model) -> dict[int, list[int]]:
    """Operator position -> tensors not needed after it, so that memory stays that of the live tensors."""
    last: dict[int, int] = {}
    for position, op in enumerate(model.operators):
        for index in (*op.inputs, *op.outputs):
            last[index] = position
    for index in model.outputs:
        last.pop(index, None)
    found: dict[int, list[int]] = {}
    for index, position in last.items():
        found.setdefault(position, []).append(index)
    return found


def _ending_at(model: Model, outputs: Sequence[str | int]) -> Model:
    """The part of a model that computes the tensors asked for, by name or index."""
    names = {t.name: t.index for t in reversed(model.tensors)}
    wanted = []
    for asked in outputs:
        index = names.get(asked, -1) if isinstance(asked, str) else int(asked)
        if not 0 <= index < len(model.tensors):
            raise HwsimError(f"{model.source}: no tensor {asked!r}{near(str(asked), names)}")
        wanted.append(index)
    needed, operators = set(wanted), []
    for op in reversed(model.operators):
        if needed.intersection(op.outputs):
            needed.update(i for i in op.inputs if i >= 0)
            operators.append(op)
    return replace(model, operators=tuple(reversed(operators)), outputs=tuple(wanted))


def _bind(model: Model, inputs: Array | Sequence[Array] | Mapping[str, Array]) -> dict[int, Array]:
    """Arrays by tensor index; raises HwsimError where names, counts, shapes or types do not fit."""
    wanted = [i for i in dict.fromkeys(model.inputs) if i >= 0]
    names = {model.tensors[i].name: i for i in wanted}
    if isinstance(inputs, Mapping):
        for name in inputs:
            if name not in names:
                raise HwsimError(f"{model.source}: no input {name!r}{near(name, names)}")
        given = {names[name]: np.asarray(value) for name, value in inputs.items()}
    else:
        parts = [inputs] if isinstance(inputs, np.ndarray) else [np.asarray(p) for p in inputs]
        if len(parts) != len(wanted):
            raise HwsimError(
                f"{model.source}: takes {len(wanted)} inputs ({', '.join(names)[:200]}), given {len(parts)}"
            )
        given = dict(zip(wanted, parts, strict=True))
    for index in wanted:
        tensor = model.tensors[index]
        if index not in given:
            raise HwsimError(f"{model.source}: input {tensor.name!r} is missing")
        value = given[index]
        if value.dtype != tensor.dtype or value.shape != tensor.shape:
            raise HwsimError(
                f"{model.source}: input {tensor.name!r} needs {tensor.dtype} {tensor.shape}, given {value.dtype} {value.shape}"
            )
    return given
