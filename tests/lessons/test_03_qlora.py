"""What notebook 03 defines, taken out of it and held against bitsandbytes, torch, PEFT and brute force."""

import bitsandbytes.functional as bnb
import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from scipy import stats
from torch import nn

from course_utils import lessons, memory
from tests.conftest import tiny

qlora = lessons.definitions("03_qlora")
LEVELS = qlora.LEVELS


def brute_force(values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The nearest level of each value, found by trying all."""
    return levels[(values[..., None] - levels).abs().argmin(dim=-1)]


@pytest.mark.parametrize("name", qlora.TABLES)
def test_a_round_trip_takes_every_number_to_the_nearest_level_of_its_block(name):
    levels, rows = qlora.TABLES[name], torch.randn(50, 64)
    absmax = rows.abs().amax(dim=1, keepdim=True)
    found = qlora.round_trip(rows, levels)
    torch.testing.assert_close((found - rows).abs(), (brute_force(rows / absmax, levels) * absmax - rows).abs())
    torch.testing.assert_close(qlora.round_trip(levels[None] * 3, levels), levels[None] * 3)


def test_excess_kurtosis_is_scipys():
    """But that torch divides the variance by n - 1, and scipy by n."""
    for values in (torch.randn(10_000), torch.rand(10_000), torch.randn(10_000) ** 3):
        theirs = 3 + stats.kurtosis(values.numpy().astype(np.float64))
        assert 3 + qlora.excess_kurtosis(values) == pytest.approx(theirs * (1 - 1 / len(values)) ** 2, rel=1e-5)
    blocks = qlora.in_blocks(torch.randn(6, 128) * torch.arange(1, 7)[:, None])
    assert blocks.shape == (12, 64)
    torch.testing.assert_close(blocks.square().mean(dim=1), torch.ones(12))


def test_nf4_levels_are_bitsandbytes_bit_for_bit_and_zero_is_exact():
    assert torch.equal(LEVELS, bnb.get_4bit_type("nf4", device="cpu"))
    assert torch.equal(LEVELS, qlora.nf4_levels())
    assert LEVELS[7] == 0


def test_tables_are_those_of_their_formats():
    assert qlora.TABLES["int4"].tolist() == pytest.approx([n / 7 for n in range(-7, 8)])
    halves = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert (qlora.TABLES["E2M1"] * 6).tolist() == pytest.approx([-half for half in halves[:0:-1]] + halves)
    for name in ("AF4", "FP4"):
        theirs = bnb.get_4bit_type(name.lower(), device="cpu")
        assert set(qlora.TABLES[name].tolist()) == set(theirs.tolist())
    assert all((table.diff() > 0).all() and table.abs().max() == 1 for table in qlora.TABLES.values())


CASES = {
    "normal": torch.randn(256, 512),
    "tiny": torch.randn(64, 64) * 1e-30,
    "huge": torch.randn(64, 64) * 1e30,
    "no multiple of a block": torch.randn(10, 10),
    "one block and one": torch.randn(66),
    "less than a block": torch.randn(2),
    "zeros": torch.zeros(4, 64),
    "zeros beside others": torch.cat([torch.zeros(64), torch.randn(64)]),
    "one value": torch.full((2, 64), -0.3),
    "bf16": torch.randn(64, 64).bfloat16(),
    "fp16": torch.randn(64, 64).half(),
    "three dimensions": torch.randn(2, 3, 64),
}  # no rows of a multiple of 16 numbers but whole blocks: bitsandbytes 0.50.2 restores others wrongly with AVX512


@pytest.mark.parametrize("name", CASES)
def test_blockwise_nf4_is_bitsandbytes_bit_for_bit(name):
    weight = CASES[name]
    packed, absmax = qlora.quantize(weight)
    theirs, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert torch.equal(packed, theirs.flatten())
    assert torch.equal(absmax, state.absmax)
    restored = qlora.dequantize(packed, absmax, weight.shape).to(weight.dtype)
    assert torch.equal(restored, bnb.dequantize_4bit(theirs, state).reshape(weight.shape))


@pytest.mark.parametrize("count", [1, 63, 65, 127])
def test_an_odd_count_fills_its_last_byte_with_zero_and_comes_back(count):
    """Packed as bitsandbytes does it; unpacked by trying all levels, since its own way compiles for half a minute."""
    weight = torch.randn(count)
    packed, absmax = qlora.quantize(weight)
    theirs, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert torch.equal(packed, theirs.flatten())
    assert torch.equal(absmax, state.absmax)
    scale = absmax.repeat_interleave(64)[:count]
    restored = qlora.dequantize(packed, absmax, weight.shape)
    torch.testing.assert_close(restored, brute_force(weight / scale, LEVELS) * scale)


def test_other_block_sizes_are_bitsandbytes_too():
    weight = torch.randn(16, 1024)
    for size in (128, 256, 1024):
        packed, absmax = qlora.quantize(weight, size)
        theirs, state = bnb.quantize_4bit(weight, blocksize=size, quant_type="nf4")
        assert torch.equal(packed, theirs.flatten())
        assert torch.equal(qlora.dequantize(packed, absmax, weight.shape, size), bnb.dequantize_4bit(theirs, state))


def test_no_other_sixteen_levels_beat_lloyd_and_max():
    """Its levels are the weighted means of their bins, and moving any of them makes the error larger."""
    rows = torch.randn(2048, 64)
    levels = qlora.lloyd_max(rows, rounds=200)

    def squared(table: torch.Tensor) -> float:
        return (qlora.round_trip(rows, table) - rows).double().square().mean().item()

    least = squared(levels)
    assert least < min(squared(table) for table in qlora.TABLES.values())
    for place in range(16):
        for step in (-0.01, 0.01):
            moved = levels.clone()
            moved[place] += step
            assert squared(moved.sort().values) > least


def test_errors_are_over_the_standard_deviation():
    weight, restored = torch.randn(64, 128), torch.randn(64, 128)
    gap, scale = (restored - weight).double().numpy(), weight.double().std().item()
    found = qlora.errors(restored, weight)
    assert found == pytest.approx(
        {"RMS": np.sqrt((gap**2).mean()) / scale, "MAE": np.abs(gap).mean() / scale}, rel=1e-5
    )
    assert qlora.errors(40 * restored, 40 * weight) == pytest.approx(found, rel=1e-5)


def test_a_table_with_an_offset_loses_nothing_of_sixteen_even_values():
    rows = torch.randint(0, 16, (5, 32)) * 0.3 - 1.7
    rows[:, 0], rows[:, 1] = -1.7, 15 * 0.3 - 1.7
    torch.testing.assert_close(qlora.with_offset(rows), rows)
    weight = torch.randn(4, 64)
    width = (weight.reshape(-1, 32).amax(1) - weight.reshape(-1, 32).amin(1)) / 15
    gap = (qlora.with_offset(weight) - weight).reshape(-1, 32).abs().amax(1)
    assert (gap <= width / 2 + 1e-6).all()


def test_nvfp4_has_a_scale_that_e4m3_can_hold_and_mxfp4_a_power_of_two():
    weight = torch.randn(32, 64)
    numbers = set((qlora.TABLES["E2M1"] * 6).round(decimals=4).tolist())
    for row, restored in zip(weight.reshape(-1, 32), qlora.mxfp4(weight).reshape(-1, 32), strict=True):
        shared = 2.0 ** (np.floor(np.log2(row.abs().max().item())) - 2)
        assert set((restored / shared).round(decimals=4).tolist()) <= numbers
        inside = row.abs() <= 6 * shared
        nearest = brute_force(row[inside] / shared, qlora.TABLES["E2M1"] * 6) * shared
        torch.testing.assert_close((restored - row)[inside].abs(), (nearest - row[inside]).abs())
    whole = weight.abs().max() / 448 / 6
    for row, restored in zip(weight.reshape(-1, 16), qlora.nvfp4(weight).reshape(-1, 16), strict=True):
        scale = (row.abs().max() / 6 / whole).to(torch.float8_e4m3fn).float() * whole
        nearest = brute_force(row / scale, qlora.TABLES["E2M1"] * 6) * scale
        torch.testing.assert_close((restored - row).abs(), (nearest - row).abs())


def test_the_8_bit_table_is_bitsandbytes_bit_for_bit():
    assert torch.equal(qlora.DYNAMIC, bnb.create_dynamic_map())


@pytest.mark.parametrize("scale", [1.0, 1e-3, 30.0])
def test_double_quantization_is_bitsandbytes_but_where_its_search_takes_a_neighbor(scale):
    weight = torch.randn(1024, 256) * scale
    _, absmax = qlora.quantize(weight)
    _, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    index, second, offset = qlora.double_quantize(absmax)
    assert torch.equal(offset, state.offset)
    assert torch.equal(second, state.state2.absmax)
    assert (index != state.absmax).float().mean() < 0.01
    theirs = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
    assert torch.equal(qlora.undo(state.absmax, second, offset), theirs)
    ours = qlora.undo(index, second, offset)
    assert ((ours - absmax).abs() <= (theirs - absmax).abs() + 1e-6 * scale).all(), "and ours is never the farther one"


def test_bits_are_those_that_are_stored(monkeypatch):
    monkeypatch.setitem(qlora.bits_per_weight.__globals__, "normal", torch.randn(256, 256))
    assert qlora.bits_per_weight(False) == 4 + 32 / 64
    assert qlora.bits_per_weight(True) == pytest.approx(4 + 8 / 64 + 32 / (64 * 256) + 32 / 256**2)


def test_bytes_by_part_add_up_to_all_that_a_model_holds():
    model = tiny(256)
    model.tie_weights()
    packed = Linear4bit(32, 64, bias=False, compress_statistics=True, quant_type="nf4").to("cpu")
    model.model.layers[0].mlp.up_proj = packed
    found = qlora.bytes_by_part(model)
    constants = memory.tensor_bytes(memory.quantization_constants(model.parameters()))
    assert found["constants"] == pytest.approx(constants / 1e6)
    assert found.sum() == pytest.approx((memory.tensor_bytes(model.parameters()) + constants) / 1e6)
    assert found["embedding"] == pytest.approx(256 * 32 * 4 / 1e6)
    assert found["norms"] == pytest.approx(5 * 32 * 4 / 1e6)


def test_rounding_a_model_changes_every_linear_layer_but_the_head():
    model = tiny().requires_grad_(False)
    before = {name: p.clone() for name, p in model.named_parameters()}
    qlora.round_weights(model, LEVELS)
    for name, p in model.named_parameters():
        expected = before[name]
        if "proj" in name:
            expected = qlora.round_trip(expected.reshape(-1, 64), LEVELS).reshape(expected.shape)
        assert torch.equal(p, expected), name


def test_what_survives_is_the_part_along_the_update():
    """All of an update from level to level; nothing of a far smaller one, but where it moves the largest of a block.

    The largest weight of a block is stored exactly, and the others of the block are multiples of it.
    """
    absmax = torch.randn(32, 1).abs() + 1
    weight = LEVELS.repeat(32, 4) * absmax
    small = 1e-4 * torch.randn(32, 64).sign()
    assert qlora.survives(weight, torch.where(weight.abs() < absmax, small, 0)) == 0
    assert qlora.survives(weight, 1e-3 * weight) == pytest.approx(1, rel=1e-3)
    moved = weight.roll(1, dims=1)
    assert qlora.survives(weight, moved - weight) == pytest.approx(1, rel=1e-5)


def test_the_count_of_the_paper_s_code_is_what_it_prints():
    """Of a model with a frozen layer in 4 bits and an adapter: halves the adapter, and numel() halves the layer."""
    model = nn.Sequential(Linear4bit(64, 64, bias=False, quant_type="nf4").to("cpu"), nn.Linear(64, 2, bias=False))
    model[0].requires_grad_(False)
    assert qlora.qlora_py_count(model) == (128 / 2, 64 * 64 // 2 + 128)
    assert qlora.qlora_py_count(model, bits=16) == (128, 64 * 64 // 2 + 128)


def test_a_cut_layer_has_the_same_output_and_passes_no_gradient_on():
    layer, x = nn.Linear(4, 4), torch.randn(2, 4, requires_grad=True)
    expected = layer(x)
    hook = layer.register_forward_hook(qlora.cut)
    found = layer(x)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    hook.remove()


def test_adam_written_out_is_torchs():
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 12)) for _ in range(2))
    optimizer, state = torch.optim.Adam([theirs], lr=1e-2), torch.zeros(2, 12)
    for step in range(1, 6):
        ours.grad = theirs.grad = torch.sin(torch.arange(12) + step)
        qlora.adam_step(ours, state, step)
        optimizer.step()
        torch.testing.assert_close(ours, theirs)


def test_pages_move_out_in_the_order_of_their_last_use_and_come_back_unaltered():
    pages = {name: torch.full((10,), float(place)) for place, name in enumerate("abc")}  # of 40 bytes
    pager = qlora.Pager(dict(pages), room=130, paged=True)
    pager.page("a")
    pager.make_room(50)
    assert (list(pager.card), list(pager.cpu), pager.moved) == (["c", "a"], ["b"], 40)
    assert torch.equal(pager.page("b"), torch.full((10,), 1.0))
    assert (list(pager.card), pager.moved) == (["c", "a", "b"], 80)
    with pytest.raises(MemoryError, match="131 bytes do not fit"):
        pager.make_room(131)
    with pytest.raises(MemoryError):
        qlora.Pager(dict(pages), room=130, paged=False).make_room(20)


def test_paging_changes_no_loss_and_moves_nothing_without_a_spike():
    rows = [64, 64, 512, 64, 64]
    roomy = qlora.train_paged(rows, room=10**9, paged=False)
    small = qlora.train_paged(rows, room=600_000, paged=True)
    assert small["loss"].tolist() == roomy["loss"].tolist()
    assert [moved > 0 for moved in small["moved"]] == [False, False, True, False, False]
    assert len(qlora.train_paged(rows, room=600_000, paged=False)) == 2


@pytest.mark.parametrize("levels", [LEVELS, torch.tensor([-1, -1 / 3, 1 / 3, 1])])
def test_loftq_starts_nearer_to_the_weights_than_quantizing_alone(levels):
    """Its first round is the best approximation of the error, of that rank; more rounds do not lose it."""
    weight = torch.randn(64, 64)
    error = qlora.round_trip(weight, levels) - weight
    values = torch.linalg.svdvals(error)
    once = (values[8:].norm() / values.norm()).item()
    assert qlora.loftq_error(weight, levels, r=8, rounds=1) == pytest.approx(once, rel=1e-4)
    assert qlora.loftq_error(weight, levels, r=8, rounds=5) < once


def test_gradients_through_frozen_4_bit_weights_are_those_through_the_dequantized_ones():
    """What the lesson shows of a whole model, against autograd on plain layers."""
    torch.manual_seed(0)
    packed = nn.Sequential(
        *(Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32) for _ in range(2))
    )
    packed.load_state_dict({f"{n}.weight": torch.randn(64, 64) for n in range(2)})
    packed = packed.to("cpu")
    plain = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(2)))
    for layer, source in zip(plain, packed, strict=True):
        layer.weight.data = bnb.dequantize_4bit(source.weight.data, source.weight.quant_state)
    config = LoraConfig(r=4, target_modules=["0", "1"])
    models = []
    for base in (packed, plain):
        torch.manual_seed(1)
        models.append(get_peft_model(base, config))
    x = torch.randn(8, 64)
    for model in models:
        model(x).square().mean().backward()
    first, second = ({n: p.grad for n, p in model.named_parameters() if p.grad is not None} for model in models)
    assert first
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name], rtol=1e-4, atol=1e-5)
