"""What notebook 03 says of memory, on a GPU: `pytest -m gpu tests/test_gpu_memory.py`, some three minutes on an H200.

bitsandbytes on CUDA against the quantizer by hand, measured peaks, plans of 1.7 to 65 billion parameters, a paged
optimizer. Models have random weights; nothing is read but this repository.
"""

import gc
import json
import subprocess
import sys
from collections.abc import Iterator

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import nn

from course_utils import memory
from course_utils.core.files import ROOT
from course_utils.memory import parts
from tests.bench import peaks, random_weights
from tests.lessons.test_03_qlora import CASES, LEVELS, qlora
from tests.paged_process import LENGTHS

pytestmark = pytest.mark.gpu
ROUNDING = 5e-7  # of a value that is multiplied by an approximate reciprocal, and of the middle of two levels
CASES = CASES | {"a million normal numbers": torch.randn(1024, 1024), "7 x 9": torch.randn(7, 9)}


@pytest.fixture
def empty_gpu(gpu: str) -> Iterator[str]:
    """A GPU without what other tests have left in torch's cache, and afterwards without a cap."""
    gc.collect()
    torch.cuda.empty_cache()
    yield gpu
    torch.cuda.set_per_process_memory_fraction(1.0)


def need(gigabytes: float) -> int:
    """Skip where the GPU has less free; else its bytes."""
    free, total = torch.cuda.mem_get_info()
    if free < gigabytes * 1e9:
        pytest.skip(f"needs {gigabytes:g} GB of a GPU")
    return total


# The quantizer


def indexes(packed: torch.Tensor, count: int) -> torch.Tensor:
    """Of `count` numbers, two to a byte."""
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()[:count]


@pytest.mark.parametrize("name", CASES)
def test_blockwise_nf4_on_cuda_is_the_quantizer_by_hand(gpu, name):
    """Bit for bit, with two exceptions, which its code has (a fast reciprocal, and none for a block of zeros).

    A value as near to the middle of two levels as rounding reaches may go to either. In a block of zeros, 0 times
    infinity is no number and goes to the lowest level; times an absmax of zero, that is zero as well.
    """
    weight, count = CASES[name], CASES[name].numel()
    packed, absmax = qlora.quantize(weight)
    on_gpu, state = bnb.quantize_4bit(weight.to(gpu), blocksize=64, quant_type="nf4")
    theirs = on_gpu.flatten().cpu()
    assert theirs.shape == packed.shape
    assert torch.equal(state.absmax.cpu(), absmax)
    scale = absmax.repeat_interleave(64)[:count]
    ours, found = indexes(packed, count), indexes(theirs, count)
    other = (ours != found) & (scale > 0)
    assert other.sum() <= 1 + count / 100_000
    assert ((ours - found)[other].abs() == 1).all()
    middle = (LEVELS[ours] + LEVELS[found])[other] / 2
    assert ((weight.float().flatten()[other] / scale[other] - middle).abs() < ROUNDING).all()
    if count % 2 == 0:  # the course restores even counts only
        restored = bnb.dequantize_4bit(on_gpu, state).cpu().reshape(weight.shape)
        assert restored.dtype == weight.dtype
        assert torch.equal(restored, qlora.dequantize(theirs, absmax, weight.shape).to(weight.dtype))
        assert (restored.flatten()[scale == 0] == 0).all()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 30.0])
def test_double_quantization_on_cuda_restores_what_the_one_by_hand_does(gpu, scale):
    """The mean is a sum in another order, so it differs by rounding; and with it an index here and there."""
    weight = CASES["a million normal numbers"] * scale
    _, absmax = qlora.quantize(weight)
    _, state = bnb.quantize_4bit(weight.to(gpu), blocksize=64, quant_type="nf4", compress_statistics=True)
    their_index, their_second, their_offset = state.absmax.cpu(), state.state2.absmax.cpu(), state.offset.cpu()
    assert torch.equal(state.state2.code.cpu(), qlora.DYNAMIC)
    index, second, offset = qlora.double_quantize(absmax)
    torch.testing.assert_close(their_offset, offset, rtol=1e-5, atol=0)
    torch.testing.assert_close(their_second, second, rtol=1e-5, atol=0)
    assert (index != their_index).float().mean() < 0.01
    theirs = (bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset).cpu()
    assert torch.equal(theirs, qlora.undo(their_index, their_second, their_offset))
    ours = qlora.undo(index, second, offset)
    assert ((ours - absmax).abs() <= (theirs - absmax).abs() + 1e-5 * scale).all(), "ours is never the farther one"


# Measured


def test_a_measured_peak_is_that_of_torchs_own_counter_around_a_known_pattern(empty_gpu):
    """Two blocks of 256 MiB at once, one of them given back, then one of 128 MiB: 512 MiB at most, 384 in the end."""
    mib = 2**20
    with memory.measure() as peak:
        first, second = (torch.empty(256 * mib, dtype=torch.uint8, device=empty_gpu) for _ in range(2))
        del first
        third = torch.empty(128 * mib, dtype=torch.uint8, device=empty_gpu)
    assert peak.peak == torch.cuda.max_memory_allocated()
    assert peak.added == pytest.approx(512 * mib, rel=0.01)
    assert torch.cuda.memory_allocated() - peak.before == pytest.approx(384 * mib, rel=0.01)
    assert second.numel() == 2 * third.numel()


def test_the_measured_peak_of_a_step_is_torchs_own_and_holds_what_autograd_keeps(empty_gpu):
    model = nn.Sequential(*(nn.Linear(2048, 2048, device=empty_gpu) for _ in range(4)))
    optimizer, x = torch.optim.AdamW(model.parameters()), torch.randn(16_384, 2048, device=empty_gpu)

    def step() -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the states, and the workspace of cuBLAS
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    by_hand = torch.cuda.max_memory_allocated() - before
    with memory.measure() as peak:
        step()
    assert peak.added == pytest.approx(by_hand, rel=0.01)
    kept = memory.activation_bytes(model, lambda: model(x).square().mean()) - x.nbytes
    assert kept == 4 * x.nbytes  # the inputs of three layers but the first, and of the square
    assert kept < peak.added < 2.5 * kept


# Planned


@pytest.mark.parametrize(
    "settings",
    [
        memory.Settings(model="SmolLM2-1.7B", method="lora", micro_batch=4),
        memory.Settings(model="Llama-3-8B", method="qlora", length=2048, checkpointing=True),
    ],
    ids=lambda settings: f"{settings.model}, {settings.method}",
)
def test_a_plan_is_near_the_peak_of_real_steps(empty_gpu, settings):
    """Within 25 %; how near, over more models and settings, is what `python -m tests.bench.peaks --gpu` records."""
    planned = parts.costs(settings).peak
    need(1.3 * planned / 1e9)
    losses, found = random_weights.train(settings, empty_gpu)
    print(f"{settings.model}, {settings.method}: planned {planned / 1e9:.2f} GB, measured {found / 1e9:.2f} GB")
    assert planned == pytest.approx(found, rel=0.25)
    assert losses[-1] < losses[0]


def test_qlora_of_65_billion_parameters_takes_its_steps_in_48_gb(empty_gpu):
    """LLaMA-65B's shape with r = 64 on all linear layers; one sequence of 512 tokens, its layers computed twice.

    All that torch allocates counts, the optimizer's 32-bit states as well, and what it keeps in its cache. The CUDA
    context, about half a GB, does not: so a card of 48 GiB has room for it.
    """
    cap = 48e9
    total = need(cap / 1e9)
    torch.cuda.set_per_process_memory_fraction(cap / total)
    losses, found = random_weights.train(peaks.LLAMA_65B, empty_gpu)
    planned = parts.costs(peaks.LLAMA_65B).peak
    print(f"65B: losses {losses}; planned {planned / 1e9:.2f} GB, measured {found / 1e9:.2f} GB")
    assert len(losses) == 3
    assert torch.tensor(losses).isfinite().all()
    assert losses[-1] < losses[0]
    assert found < cap
    assert planned == pytest.approx(found, rel=0.15)


# A paged optimizer


@pytest.mark.parametrize("kind", ["PagedAdamW", "PagedAdamW8bit"])
def test_paged_states_lie_outside_of_torchs_cap_and_their_moves_change_nothing(empty_gpu, kind):
    """Under a cap that a spike does not fit, the unpaged optimizer runs out of memory, and the paged one goes on.

    With the same losses and weights, bit for bit, as without a cap, although the CPU fetches all pages after each step.
    That the driver moves them by itself when the GPU is full is not shown: see `tests/paged_process.py`.
    """
    need(12)
    command = [sys.executable, "-m", "tests.paged_process", kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    found = json.loads(done.stdout.splitlines()[-1])
    roomy, stopped, paged = found["roomy"], found["stopped"], found["paged"]
    spike = LENGTHS.index(max(LENGTHS))
    assert len(roomy["losses"]) == len(LENGTHS)
    assert torch.tensor(roomy["losses"]).isfinite().all()
    assert stopped["losses"] == roomy["losses"][:spike]
    assert paged["losses"] == roomy["losses"]
    assert paged["weights"] == roomy["weights"]
    assert (roomy["paged"], paged["paged"]) == (0, found["states"])
    assert roomy["held"] - paged["held"] == pytest.approx(found["states"], rel=0.01)
