"""Rules for operators that work element by element though PyTorch does not tag them so, and for constants."""

from __future__ import annotations

from erfattr.receptive_field._operators.registry import Call, Results, rule, unite_elements

rule(
    *("_to_copy", "to", "alias", "clone", "contiguous", "copy", "detach", "lift", "lift_fresh"),
    *("_reshape_alias", "view_as_real", "dropout", "feature_dropout", "native_dropout", "where"),
    *("masked_fill", "clamp", "nan_to_num", "threshold", "addcmul", "addcdiv", "lerp", "fmod", "remainder"),
    *("prelu", "_prelu_kernel", "leaky_relu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish"),
    *("hardswish", "hardsigmoid", "hardtanh", "softplus"),
)(unite_elements)


@rule(
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"),
    *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided", "bernoulli"),
    *("sym_size", "sym_numel", "sym_stride"),
)
def constant(call: Call) -> Results | None:
    """The image gives the shape alone."""
    return [None] * len(call.outputs)
