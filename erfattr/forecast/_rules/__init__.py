"""Rules for second moments of gradients, one for each kind of operator.

A rule is found by the operator's name, as those of `erfattr.receptive_field` are. To add one, write it in the
module of its kind; importing this package registers all of them.
"""

from __future__ import annotations

from erfattr.forecast._rules import (
    averages,
    convolutions,
    elements,
    gates,
    moves,
    norms,
    pools,
    products,
)

__all__ = ["averages", "convolutions", "elements", "gates", "moves", "norms", "pools", "products"]
