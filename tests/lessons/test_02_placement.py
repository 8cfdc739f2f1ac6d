"""What the deeper half of notebook 02 defines, taken out of it and held against PEFT and brute force."""

import pytest
import torch
from peft.utils import merge_utils

from course_utils import lessons

placement = lessons.definitions("02_placement")


@pytest.mark.parametrize("keep", [1, 4, 7])
def test_ties_equals_pefts_and_brute_force(keep):
    updates = torch.randn(3, 7)
    merged = placement.ties(updates, keep)
    assert torch.allclose(merged, merge_utils.ties(list(updates), torch.ones(3), density=keep / 7), atol=1e-6)
    large = [set(row.abs().topk(keep).indices.tolist()) for row in updates]
    for place in range(7):
        kept = [row[place].item() for row, places in zip(updates, large, strict=True) if place in places]
        agreeing = [value for value in kept if value * sum(kept) > 0]
        assert merged[place].item() == pytest.approx(sum(agreeing) / max(1, len(agreeing)), abs=1e-6)


def test_a_pissa_file_reloads_only_with_the_exact_svd_or_converted():
    assert placement.reloaded_gap("pissa", converted=False) < 1e-5
    assert placement.reloaded_gap("pissa_niter_4", converted=False) > 0.01
    assert placement.reloaded_gap("pissa_niter_4", converted=True) < 1e-5
