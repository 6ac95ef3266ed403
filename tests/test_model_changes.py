from __future__ import annotations

from torch import nn

from erfattr import pad_kernels


def test_record_says_what_was_changed_and_what_was_left_and_why() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3), nn.AvgPool2d(2))
    _, changes = pad_kernels(model, return_changes=True)
    assert changes.changed == ("0",)
    assert changes.left == ("2",)
    assert changes.describe() == (
        "0  3x3 convolution, stride 2 -> 4x4 convolution, stride 2: same outputs until the new weights are"
        " trained\n2  2x2 average pool, stride 2, left: its kernel is a multiple of its stride"
    )
