"""What notebook 03 defines, taken out of it and held against bitsandbytes and brute force."""

import bitsandbytes.functional as bnb
import pytest
import torch

from course_utils import lessons

qlora = lessons.definitions("03_qlora")


def test_nf4_levels_equal_bitsandbytes():
    levels = qlora.nf4_levels()
    assert torch.allclose(levels, bnb.get_4bit_type("nf4", device="cpu"), atol=2e-7)
    assert levels[7] == 0


@pytest.mark.parametrize("scale", [1.0, 1e-3, 40.0])
def test_blockwise_nf4_is_bit_identical_to_bitsandbytes(scale):
    weight = torch.randn(256, 512) * scale
    packed, absmax = qlora.quantize(weight)
    theirs, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert torch.equal(packed, theirs.flatten())
    assert torch.equal(absmax, state.absmax)
    restored = qlora.dequantize(packed, absmax, weight.shape)
    assert torch.allclose(restored, bnb.dequantize_4bit(theirs, state), atol=1e-6 * scale)


def test_blockwise_nf4_equals_brute_force():
    """The nearest level, found by trying all sixteen."""
    weight = torch.randn(4, 64)
    packed, absmax = qlora.quantize(weight)
    levels = qlora.LEVELS
    nearest = (weight / absmax[:, None])[..., None].sub(levels).abs().argmin(dim=-1)
    assert torch.equal(torch.stack([packed >> 4, packed & 15], dim=1).flatten().long(), nearest.flatten())


def test_levels_come_back_exactly():
    """Zero, the largest value and every other level survive a round trip."""
    levels = qlora.LEVELS
    weight = levels.repeat(4)[None]
    packed, absmax = qlora.quantize(weight)
    assert torch.equal(qlora.dequantize(packed, absmax, weight.shape), weight)
