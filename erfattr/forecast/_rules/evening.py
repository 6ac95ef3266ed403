"""What one strided layer would hand back if it had no grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def evened(moments: Tensor, steps: Sequence[int]) -> Tensor:
    """Smooth (N, C, H, W) moments behind a step by a box as wide: the energy stays, the grid goes.

    A layer with stride s hands moments back through a comb of period s and its kernel. A comb of period s
    under a box of s pixels is flat, whatever the kernel. What the box takes across the border is lost.
    """
    down, right = steps
    padded = F.pad(moments, ((right - 1) // 2, right // 2, (down - 1) // 2, down // 2))
    return F.avg_pool2d(padded, (down, right), stride=1)
