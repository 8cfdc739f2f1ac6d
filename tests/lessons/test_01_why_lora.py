"""What the deeper half of notebook 01 defines, taken out of it and held against closed forms and brute force."""

import pytest
import torch
from torch import nn

from course_utils import lessons

why = lessons.definitions("01_why_lora")


def test_subspace_overlap_is_one_inside_zero_across_and_small_by_chance():
    axes = torch.eye(10).double()
    assert why.overlap(axes[:, :2], axes[:, :5]) == pytest.approx(1)
    assert why.overlap(axes[:, :2], axes[:, 5:]) == pytest.approx(0)
    at_random = [why.overlap(*(torch.linalg.qr(torch.randn(50, k).double())[0] for k in (3, 8))) for _ in range(200)]
    assert sum(at_random) / 200 == pytest.approx(8 / 50, abs=0.02)  # expected: max(i, j) / d


def test_strongest_are_singular_vectors_strongest_first():
    matrix = torch.diag(torch.tensor([1.0, 5.0, 3.0]))
    assert why.strongest(matrix, 2)[1].abs().argmax(dim=0).tolist() == [1, 2]


def test_amplification_equals_brute_force():
    layer = why.lora.LoRALinear(nn.Linear(12, 9, bias=False), r=3, lora_alpha=6)
    with torch.no_grad():
        layer.lora_B.normal_()
    update = layer.update().detach()
    left, right = (torch.linalg.qr(m)[0] for m in (layer.lora_B.detach(), layer.lora_A.detach().T))
    inside = torch.linalg.norm(left.T @ layer.base.weight.detach() @ right)
    assert why.amplification(layer, why.strongest(layer.update(), 3)) == pytest.approx(
        (torch.linalg.norm(update) / inside).item(), rel=1e-4
    )


def test_rounding_over_update_is_known_for_one_number():
    """1 + 2^-9 lies between two bf16 numbers that are 2^-7 apart: it is rounded to 1, and all of the update is lost."""
    one, tiny = {"w": torch.ones(3)}, {"w": torch.full((3,), 2.0**-9)}
    assert why.rounding_over_update(one, tiny, 1) == pytest.approx(1)
    assert why.rounding_over_update(one, tiny, 4) == 0  # 1 + 2^-7 is a bf16 number


def test_a_swapped_start_has_a_at_zero_and_adds_nothing_either():
    layer, x = why.toy_layer(swapped=True), torch.randn(5, 64).double()
    assert not layer.lora_A.any()
    assert layer.lora_B.any()
    assert torch.equal(layer(x), layer.base(x))


def test_conventions_are_named_by_their_sums():
    assert sorted(why.CONVENTIONS.values()) == [2, 8, 12, 16, 16]
