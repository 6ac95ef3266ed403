"""Rules for operators that take in many positions along a dim."""

from __future__ import annotations

from erfattr.receptive_field._place_rules.registry import Found, Placing, place_rule
from erfattr.receptive_field._places import Line, along, contracted, without
from erfattr.receptive_field._rules import dims_of


@place_rule(
    *("sum", "mean", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "std_mean", "norm"),
    *("linalg_vector_norm", "logsumexp", "any", "all", "argmax", "argmin", "median", "nansum", "nanmean"),
)
def reduce(call: Placing) -> Found:
    """One value of all along some dims."""
    tensor, output = call.tensors[0], call.outputs[0]
    dims = dims_of(call.bound.get("dim"), tensor.ndim)

    def reduced(line: Line) -> Line:
        line = contracted(line, dims)
        return line if output.ndim == tensor.ndim else without(line, dims)

    return call.all(call.first.each(reduced))


@place_rule("glu")
def glu(call: Placing) -> Found:
    """One half of a dim gates the other."""
    (dim,) = dims_of(call.bound["dim"], call.tensors[0].ndim)
    return [call.first.each(lambda line: along(line, dim, lambda _: None))]
