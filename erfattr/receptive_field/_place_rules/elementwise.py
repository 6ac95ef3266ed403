"""Rules for operators that leave every element where it is, and for those that make constants."""

from __future__ import annotations

from erfattr.receptive_field._place_rules.registry import Found, Placing, elements, place_rule
from erfattr.receptive_field._places import nowhere

place_rule(
    *("_to_copy", "to", "alias", "clone", "contiguous", "copy", "detach", "lift", "lift_fresh"),
    *("dropout", "feature_dropout", "native_dropout", "where", "masked_fill", "clamp", "nan_to_num"),
    *("threshold", "addcmul", "addcdiv", "lerp", "fmod", "remainder", "prelu", "_prelu_kernel"),
    *("leaky_relu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
    *("hardtanh", "softplus", "log_sigmoid_forward"),
)(elements)


@place_rule(
    *("native_layer_norm", "_fused_rms_norm", "rms_norm", "native_group_norm", "_softmax", "_log_softmax"),
    *("softmax", "log_softmax", "_safe_softmax", "cumsum", "cumprod", "logcumsumexp", "tril", "triu"),
    *("_transformer_encoder_layer_fwd", "_native_multi_head_attention", "instance_norm"),
    pattern=r".*batch_norm.*",
)
def in_place(call: Placing) -> Found:
    """Every element stays where it is, whatever else it takes in."""
    found, shape = call.first, call.tensors[0].shape
    return [found if output.shape == shape else nowhere(output.ndim) for output in call.outputs]


@place_rule(
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"),
    *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"),
)
def constant(call: Placing) -> Found:
    """The image gives the shape alone."""
    return [None] * len(call.outputs)
