"""What operators do to the places of elements: one rule for each kind of operator.

Importing the package registers the rules; a new one goes into the module of its family and nowhere else.
A rule that is missing costs a proof, never makes a wrong one: the output then has no place until something
that has one is added to it (the other branch of a residual sum, say).
"""

from __future__ import annotations

from erfattr.receptive_field._place_rules import elementwise, moving, products, reducing, windows
from erfattr.receptive_field._place_rules.products import is_attention
from erfattr.receptive_field._place_rules.registry import Placing, places_after

__all__ = [
    "Placing",
    "elementwise",
    "is_attention",
    "moving",
    "places_after",
    "products",
    "reducing",
    "windows",
]
