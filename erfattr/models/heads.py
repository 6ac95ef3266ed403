"""The last layer of a classifier, for other classes."""

from __future__ import annotations

import copy

from torch import nn

from erfattr._checks import check_module, check_positive_int
from erfattr._model import seeded


def replace_head(model: nn.Module, classes: int, seed: int = 0) -> nn.Module:
    """Return a copy whose last linear layer has one output for each class, freshly initialised.

    A network that has that many outputs already is copied as it is.

    Args:
        model: A classifier that ends in a linear layer, such as torchvision's ResNets.
        classes: Number of outputs.
        seed: Of the new layer's weights. The global random state comes back as it was.

    Raises:
        TypeError: ``model`` is not a module, ``classes`` not an integer.
        ValueError: the model has no linear layer; ``classes`` is not positive.

    Example:
        >>> replace_head(nn.Sequential(nn.Flatten(), nn.Linear(4, 1000)), 2)
        Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    check_module("model", model)
    check_positive_int("classes", classes)
    model = copy.deepcopy(model)
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    # A model that is itself the layer has no place to put another one in.
    if not linear or linear[-1][0] == "":
        raise ValueError(f"model: expected one that ends in a linear layer, got a {type(model).__name__}")
    name, head = linear[-1]
    if head.out_features != classes:
        owner, _, attribute = name.rpartition(".")
        with seeded(seed):
            fresh = nn.Linear(head.in_features, classes, bias=head.bias is not None)
        setattr(model.get_submodule(owner), attribute, fresh)
    return model
