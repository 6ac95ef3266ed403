from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from erfattr.models.demo import DemoNet
from erfattr.remedies.variants import VARIANTS, make_variant


def strided(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]


def test_the_padded_variant_has_the_papers_kernels(resnet: DemoNet) -> None:
    sizes = [layer.kernel_size for _, layer in strided(make_variant("padded", resnet))]
    assert sorted(sizes) == [(2, 2)] * 3 + [(4, 4)] * 3 + [(8, 8)]
    assert make_variant("padded", resnet).maxpool.kernel_size == (4, 4)


def test_padding_adds_zeros_and_fresh_kernels_are_drawn_as_in_resnets(resnet: DemoNet) -> None:
    padded, fresh = (make_variant(name, resnet, seed=1) for name in ("padded", "padded_fresh"))
    originals, drawn = dict(strided(resnet)), dict(strided(fresh))
    torch.manual_seed(1)
    for name, layer in strided(padded):
        rows, columns = originals[name].kernel_size
        assert torch.equal(layer.weight[..., :rows, :columns], originals[name].weight)
        assert int(layer.weight.count_nonzero()) == originals[name].weight.count_nonzero()
        oracle = nn.init.kaiming_normal_(torch.empty_like(layer.weight), mode="fan_out", nonlinearity="relu")
        assert torch.equal(drawn[name].weight, oracle)
    assert torch.equal(fresh.layer1[0].conv1.weight, resnet.layer1[0].conv1.weight)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_a_working_copy_with_a_description(
    name: str,
    resnet: DemoNet,
    images: Tensor,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    before = snapshot(resnet)
    variant = make_variant(name, resnet, seed=3)
    assert_same(before, snapshot(resnet))
    output = variant.eval()(images)
    assert output.shape == (5, 10)
    assert bool(torch.isfinite(output).all())
    assert set(map(id, variant.parameters())).isdisjoint(map(id, resnet.parameters()))
    assert len(VARIANTS[name].description) > 10


def test_the_original_is_the_network(resnet: DemoNet, images: Tensor) -> None:
    assert torch.equal(make_variant("original", resnet).eval()(images), resnet.eval()(images))


def test_unknown_variants_and_bad_arguments(resnet: DemoNet) -> None:
    with pytest.raises(
        ValueError, match=r"variant: expected one of original, .* got 'paded'; nearest: padded"
    ):
        make_variant("paded", resnet)
    with pytest.raises(TypeError, match="variant: expected a name, got 3"):
        make_variant(3, resnet)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got 'demo'"):
        make_variant("padded", "demo")  # type: ignore[arg-type]
