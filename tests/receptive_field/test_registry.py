"""The registry of rules: one place for each operator, names before patterns, patterns before the default."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from erfattr.receptive_field._operators.registry import Call, Results, rule, unite_elements
from erfattr.receptive_field.trace import theoretical_receptive_field
from tests.receptive_field.conftest import Functional

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        (aten.relu.default, "unite_elements"),
        (aten.relu_.default, "unite_elements"),
        (aten.maximum.default, "unite_elements"),
        (aten.max.dim, "reduce"),
        (aten.cat.default, "cat"),
        (aten.max_pool2d_with_indices.default, "pool"),
        (aten._adaptive_avg_pool2d.default, "adaptive_pool"),
        (aten.upsample_bilinear2d.default, "upsample"),
        (aten.native_batch_norm.default, "batch_norm"),
        (aten._scaled_dot_product_flash_attention_for_cpu.default, "attention"),
        (aten.slice.Tensor, "cut"),
        (aten._fft_r2c.default, None),
    ],
)
def test_rule_of_an_operator(operator: object, name: str | None) -> None:
    found = rule.of(operator, unite_elements)
    assert (found and found.__name__) == name


def test_two_rules_for_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="names: there is a rule for cat already"):
        rule("cat", "some_operator")(lambda call: None)
    assert "some_operator" not in rule._by_name


def test_a_new_rule_is_one_decorated_function(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Functional(lambda x: torch.fft.fft2(x, norm="ortho").abs())
    assert theoretical_receptive_field(model, input_size=6).unknown_operators

    monkeypatch.setattr(rule, "_by_pattern", list(rule._by_pattern))
    monkeypatch.setattr(rule, "_found", {})

    @rule(pattern="_fft_.*")
    def transform(call: Call) -> Results | None:
        found = call[call.tensors[0]]
        dims = call.bound["dim"]
        return [found and found.each(lambda axis: axis.united(dims))]

    try:
        rf = theoretical_receptive_field(model, input_size=6)
    finally:
        monkeypatch.undo()
    assert (rf.status, rf.unknown_operators, rf.size) == ("whole image", (), (6, 6))


def test_operators_of_other_libraries_have_no_rule_by_name() -> None:
    @torch.library.custom_op("erfattr_registry_tests::sort", mutates_args=(), schema="(Tensor x) -> Tensor")
    def sort(x: Tensor) -> Tensor:
        return x.sort().values

    assert rule.of(aten.sort.default, unite_elements) is not None
    assert rule.of(torch.ops.erfattr_registry_tests.sort.default, unite_elements) is None
