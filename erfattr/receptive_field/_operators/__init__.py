"""What an operator's outputs have read, from what its operands have read: one rule for each kind of operator.

Importing the package registers the rules; a new one goes into the module of its family and nowhere else.
How a pass over the model calls them is in `erfattr.receptive_field._tracing`.
"""

from __future__ import annotations

from erfattr.receptive_field._operators import elementwise, moving, products, reducing, resizing, windows

__all__ = ["elementwise", "moving", "products", "reducing", "resizing", "windows"]
