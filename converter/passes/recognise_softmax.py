"""Recognise Softmax and LogSoftmax."""

from __future__ import annotations

from mnnpy.converter.passes.patterns import Call, Constant, Match, OneOf, Var, recognise
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.rewrite import Subject, apply_rules
from mnnpy.runtime.ops.elementwise import Div, Exp, Log, Sub
from mnnpy.runtime.ops.reduction import LogSoftmax, Reduce, ReduceMax, ReduceSum, Softmax


def _kept(op: Reduce) -> bool:
    return bool(op.keepdims)


_X = Var("x")
_SHIFTED = Call(Sub, _X, Call(ReduceMax, _X, Constant("max_axes"), where=_kept))
_POWERS = Call(Exp, OneOf(_SHIFTED, _X), name="powers")
_SOFTMAX = Call(Div, _POWERS, Call(ReduceSum, Var("powers"), Constant("sum_axes"), where=_kept))
_LOG_SOFTMAX = Call(Log, Call(Softmax, _X, name="softmax"))


def recognise_softmax(graph: Graph) -> Graph:
    """Exponentials over their sum along an axis, and the logarithm of that."""
    return apply_rules(
        graph, recognise(Div, _SOFTMAX, _softmax), recognise(Log, _LOG_SOFTMAX, _log_softmax)
    )


def _softmax(subject: Subject, match: Match) -> Softmax | None:
    axes = {
        tuple(subject.constants[name].reshape(-1).tolist())
        for key, name in match.values.items()
        if key in ("max_axes", "sum_axes")
    }
    (axis, *others) = axes.pop() if len(axes) == 1 else (None,)
    return None if axis is None or others else Softmax(axis)


def _log_softmax(subject: Subject, match: Match) -> LogSoftmax | None:
    node = subject.producer(match.values["softmax"], Softmax)
    if node is None or not isinstance(node.op, Softmax):
        return None
    return LogSoftmax(node.op.axis, node.op.trailing)
