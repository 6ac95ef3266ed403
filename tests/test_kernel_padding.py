from __future__ import annotations

import torch

from erfattr import pad_kernels
from erfattr.models import DemoNet


def test_padded_network_has_the_outputs_of_the_original_at_every_size(resnet: DemoNet) -> None:
    resnet.eval()
    padded = pad_kernels(resnet)
    for size in ((63, 64), (64, 65), (65, 66), (33, 32)):
        image = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(padded(image), resnet(image), rtol=1e-12, atol=1e-12)
