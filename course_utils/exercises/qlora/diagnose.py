"""What is wrong with this quantizer?

`quantizer` makes the two functions of an NF4 quantizer with blocks of 64, right or with one of four faults: a *level*
off by a thousandth; the *halves* of each byte swapped, both ways; a *sign* forgotten, so that the largest number of
a block is taken for its largest absolute value; a *block* of 128. You get the two functions alone. `quantize(weight)`
takes an fp32 tensor and returns packed indexes, two in a byte, and an absmax for each block; `dequantize(packed,
absmax)` returns the numbers in one row.

Write a function that finds out what they have: `"level"`, `"halves"`, `"sign"`, `"block"`, or `"none"`. The lesson
compared with bitsandbytes; which of its comparisons notices which fault, and on which numbers? Choose yours so that
each fault shows. `bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")` returns packed indexes, in a column, and a
state with `absmax`; `bnb.dequantize_4bit(packed, state)` is its way back, in the shape of the weight. (Take rows of
whole blocks of 64: bitsandbytes does not restore all others rightly on every CPU.)
"""

from collections.abc import Callable

import bitsandbytes.functional as bnb
import torch

from course_utils.exercises.exercise import Exercise

NAMES = ("level", "halves", "sign", "block", "none")
Function = Callable[..., torch.Tensor | tuple[torch.Tensor, torch.Tensor]]


def quantizer(fault: str) -> tuple[Callable, Callable]:
    """The two ways of NF4, to packed indexes with an absmax a block and back: right, or with one of four faults."""
    levels, size = bnb.get_4bit_type("nf4", device="cpu").clone(), 128 if fault == "block" else 64
    levels[12] += 0.001 * (fault == "level")

    def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        blocks = weight.flatten().split(size)
        absmax = torch.stack([block.max() if fault == "sign" else block.abs().max() for block in blocks])
        scaled = torch.cat([block * (1 / most) for block, most in zip(blocks, absmax, strict=True)])
        index = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2).to(torch.uint8).reshape(-1, 2)
        first, second = (index.flip(1) if fault == "halves" else index).T
        return first << 4 | second, absmax

    def dequantize(packed: torch.Tensor, absmax: torch.Tensor) -> torch.Tensor:
        index = torch.stack([packed >> 4, packed & 15], dim=1)
        index = (index.flip(1) if fault == "halves" else index).flatten().long()
        return levels[index] * absmax.repeat_interleave(size)[: len(index)]

    return quantize, dequantize


def diagnose(quantize: Callable, dequantize: Callable) -> str:
    """The fault of a quantizer: "level", "halves", "sign", "block", or "none"."""
    weight = torch.randn(64, 64)
    packed, absmax = quantize(weight)
    theirs, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    if absmax.shape != state.absmax.shape:
        return "block"
    if not torch.equal(absmax, state.absmax):
        return "sign"
    restored = dequantize(packed, absmax).reshape(weight.shape)
    if not torch.allclose(restored, bnb.dequantize_4bit(theirs, state), atol=1e-6):
        return "level"
    return "none" if torch.equal(packed, theirs.flatten()) else "halves"


def cases() -> dict[str, tuple[str]]:
    return {
        "the right one": ("none",),
        "a level off by a thousandth": ("level",),
        "swapped halves": ("halves",),
        "a forgotten sign": ("sign",),
        "blocks of 128": ("block",),
    }


def outcome(answer: Callable[[Function, Function], str], fault: str) -> str:
    """What is found in a quantizer with that fault.

    Raises:
        ValueError: a word that is none of the five.
    """
    found = answer(*quantizer(fault))
    if found is not ... and found not in NAMES:
        raise ValueError(f"Your function returned {found!r}; its words are {', '.join(NAMES)}.")
    return found


def _compared(
    quantize: Function, dequantize: Function, weight: torch.Tensor, atol: float = 1e-6, quant_type: str = "nf4"
) -> dict[str, bool]:
    """What equals bitsandbytes': how many absmax, their values, the packed bytes, and what is restored."""
    packed, absmax = quantize(weight)
    theirs, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=quant_type)
    restored = bnb.dequantize_4bit(theirs, state).flatten()
    return {
        "count": absmax.shape == state.absmax.shape,
        "absmax": absmax.shape == state.absmax.shape and torch.equal(absmax, state.absmax),
        "bytes": torch.equal(packed, theirs.flatten()),
        "restored": torch.allclose(dequantize(packed, absmax), restored, rtol=0, atol=atol),
    }


def _first(found: dict[str, bool], **words: str) -> str:
    """The word of the first comparison that fails."""
    return next((word for name, word in words.items() if not found[name]), "none")


def restored_alone(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.randn(64, 64))
    return _first(found, count="block", absmax="sign", restored="level")


def bytes_first(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.randn(64, 64))
    return _first(found, count="block", bytes="halves", absmax="sign", restored="level")


def one_block(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.linspace(-1, 0.99, 64))
    return _first(found, count="block", absmax="sign", restored="level", bytes="halves")


def one_random_block(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.randn(64))
    return _first(found, count="block", absmax="sign", restored="level", bytes="halves")


def positive_numbers(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.rand(64, 64))
    return _first(found, count="block", absmax="sign", restored="level", bytes="halves")


def loosely(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.randn(64, 64), atol=1.0)
    return _first(found, count="block", absmax="sign", restored="level", bytes="halves")


def loosely_and_restored_alone(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.randn(64, 64), atol=1.0)
    return _first(found, count="block", absmax="sign", restored="level")


def values_of_absmax_unseen(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.randn(64, 64))
    return _first(found, count="block", restored="level", bytes="halves")


def compared_with_fp4(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.randn(64, 64), quant_type="fp4")
    return _first(found, count="block", absmax="sign", restored="level", bytes="halves")


def column_beside_row(quantize, dequantize):
    found = _compared(quantize, dequantize, torch.randn(64, 64))
    return _first(found | {"bytes": False}, count="block", absmax="sign", restored="level", bytes="halves")


def nothing_found(quantize, dequantize):
    return "none"


def from_the_inside(quantize, dequantize):
    every = dequantize(torch.arange(256, dtype=torch.uint8), torch.ones(8)).reshape(256, 2)
    if every[1, 0] > every[1, 1]:
        return "halves"
    if not torch.equal(every[:16, 1], bnb.get_4bit_type("nf4", device="cpu")):
        return "level"
    absmax = quantize(-torch.ones(128))[1]
    return "block" if len(absmax) == 1 else "sign" if absmax[0] < 0 else "none"


EXERCISE = Exercise(
    answer=diagnose,
    kind="find it",
    difficulty=3,
    minutes=15,
    cases=cases,
    outcome=outcome,
    given=(quantizer,),
    mistakes={
        restored_alone: "{wrong} of {cases} is taken for another: swapped halves pass. Who swaps on both ways "
        "restores all numbers; only the packed bytes tell.",
        bytes_first: "{wrong} of {cases} are taken for another: a wrong level or absmax changes some bytes, too. So "
        "bytes that differ are swapped halves only if all else is right.",
        one_random_block: "{wrong} of {cases} are taken for another: blocks of 128 pass, and a forgotten sign. In a "
        "tensor of one block nobody can see how long a block is; and its largest number may be a positive one.",
        one_block: "{wrong} of {cases} is taken for another: blocks of 128 pass. In a tensor of one block nobody can "
        "see how long a block is.",
        positive_numbers: "{wrong} of {cases} is taken for another: a forgotten sign passes. Does a block of yours "
        "have its largest absolute value below zero?",
        loosely: "{wrong} of {cases} is taken for another: a wrong level passes for swapped halves. It changes some "
        "bytes, too: so compare what is restored first, within less than a thousandth of the absmax.",
        loosely_and_restored_alone: "{wrong} of {cases} are taken for another: a wrong level passes, for your "
        "tolerance is wider than a thousandth of the absmax; and so do swapped halves, which only the bytes show.",
        values_of_absmax_unseen: "{wrong} of {cases} is taken for another: a forgotten sign passes for a wrong level. "
        "Compare the absmax themselves before what is made with them.",
        compared_with_fp4: "{wrong} of {cases} are taken for another, the right one for one with a wrong level. Were "
        "restored numbers held against the weights themselves, which 4 bits round? Or was `quant_type` left out (the "
        "default of bitsandbytes is FP4)? Or are your rows no whole blocks of 64?",
        column_beside_row: "{wrong} of {cases} is taken for another, the right one for swapped halves. Bytes of "
        "bitsandbytes come in a column, and a column never equals a row: `.flatten()` it first.",
        nothing_found: "{wrong} of {cases} are taken for another: no fault was found.",
    },
    hints=(
        "For each fault: does it change the number of absmax, their values, the bytes, what is restored? One of them "
        "leaves all restored numbers as they are.",
        "Some faults change several of these. Ask in this order: how many absmax, their values, the restored numbers "
        "within 1e-6, the bytes. Take several blocks of numbers of both signs.",
    ),
    alternatives=(from_the_inside,),
)
