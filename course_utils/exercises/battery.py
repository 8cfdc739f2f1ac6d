"""How does a result differ from the expected one?"""

import math
from numbers import Real
from typing import Any

import torch

from course_utils.exercises.outcomes import RESULT, Outcome, kind


def equal(yours: Outcome, expected: Outcome, rtol: float) -> bool:
    """Whether two calls did the same; two errors are the same if type and text are."""
    if yours.error or expected.error:
        return type(yours.error) is type(expected.error) and str(yours.error) == str(expected.error)
    alike = yours.parts.keys() == expected.parts.keys() and yours.changed == expected.changed
    return alike and not different(yours, expected, rtol)


def different(yours: Outcome, expected: Outcome, rtol: float) -> dict[str, tuple[Any, Any]]:
    """The parts that both have and that differ, yours and the expected; if there are none, the gradients that do."""
    both = [
        {name: (mine[name], right[name]) for name in right if name in mine and not same(mine[name], right[name], rtol)}
        for mine, right in ((yours.parts, expected.parts), (yours.gradients, expected.gradients))
    ]
    return both[0] or both[1]


def same(yours: Any, expected: Any, rtol: float) -> bool:
    """Whether two parts are equal: whole numbers exactly, others within `rtol`, tensors in shape and format as well."""
    if isinstance(expected, torch.Tensor):
        alike = isinstance(yours, torch.Tensor) and yours.dtype == expected.dtype and yours.shape == expected.shape
        return alike and yours.requires_grad >= expected.requires_grad and near(yours, expected, rtol)
    if isinstance(expected, Real) and isinstance(yours, Real):
        if math.isnan(expected):
            return math.isnan(yours)
        return yours == expected if isinstance(expected, int) else math.isclose(yours, expected, rel_tol=rtol)
    return type(yours) is type(expected) and yours == expected


def near(yours: torch.Tensor, expected: torch.Tensor, rtol: float) -> bool:
    """Whether no entry is further off than `rtol` times the largest, or than the steps of the coarser format."""
    if yours.dtype.is_floating_point:
        rtol = max(rtol, 4 * torch.finfo(yours.dtype).eps)
    yours, expected = yours.detach().double(), expected.detach().double()
    largest = expected.abs().nan_to_num().max().item() if expected.numel() else 0.0
    alike = (yours - expected).abs() <= rtol * largest + 1e-9
    return bool((alike | (yours.isnan() & expected.isnan())).all())


def describe(name: str, yours: Any, expected: Any, rtol: float) -> str:
    """What is wrong with one part, in a sentence."""
    what = RESULT if name == RESULT else f"The part {name!r}"
    if yours is None and name.startswith("gradient of"):
        return f"No gradient reaches {name.removeprefix('gradient of ')}: something on its way is detached."
    if yours is None:
        return f"{what} is None: is there no `return`?"
    if isinstance(yours, torch.Tensor) and isinstance(expected, torch.Tensor):
        return f"{what} {_tensors(yours, expected, rtol)}"
    if isinstance(yours, Real) and isinstance(expected, Real):
        return f"{what} is {show(yours)}, expected {show(expected)}{_numbers(yours, expected)}."
    if isinstance(yours, str) and isinstance(expected, str):
        return f"{what} is {yours!r}, expected {expected!r}."
    return f"{what} is {kind(yours)}; expected is {kind(expected)}."


def _numbers(yours: float, expected: float) -> str:
    """By how much a number is wrong; nothing of True and False."""
    if isinstance(expected, bool) or not (math.isfinite(yours) and math.isfinite(expected)) or not expected:
        return ""
    by, ratio = abs(yours - expected), f"{yours / expected:.4g}"
    by = f"{by:,}" if isinstance(by, int) else f"{by:.4g}"
    times = f", {ratio} times" if ratio != "1" else ""
    return f": {by} too {'large' if yours > expected else 'small'}{times}"


def _tensors(yours: torch.Tensor, expected: torch.Tensor, rtol: float) -> str:
    """What is wrong with a tensor, from what is seen first to what is seen last."""
    right = yours.shape == expected.shape and near(yours, expected, rtol)
    if not right and yours.ndim == 2 and yours.T.shape == expected.shape and near(yours.T, expected, rtol):
        return f"is the transpose of what is expected, which has shape {tuple(expected.shape)}."
    if yours.shape != expected.shape:
        return f"has shape {tuple(yours.shape)}, expected {tuple(expected.shape)}."
    if lost := int((~yours.isfinite()).sum()):
        return f"is NaN or infinite in {lost} of {yours.numel()} places."
    if right and yours.dtype != expected.dtype:
        return f"has the right values in {yours.dtype}, expected {expected.dtype}."
    if right:
        return "has the right values, but no gradient can flow back from it: was it detached?"
    y, e = yours.detach().double(), expected.detach().double()
    return f"{_pattern(y, e, rtol)}\nyours    {show(y)}\nexpected {show(e)}"


def _pattern(y: torch.Tensor, e: torch.Tensor, rtol: float) -> str:
    """What wrong values have in common; if nothing, the one that is most wrong."""
    ratio, shift = times(y, e), (y - e).mean().item()
    if not y.any():
        return "is zero everywhere."
    if near(-y, e, rtol):
        return "has the opposite sign everywhere."
    if e.any() and near(y, ratio * e, rtol):
        return f"is {ratio:.4g} times what is expected, everywhere."
    if near(y - shift, e, rtol):
        return f"is too {'large' if shift > 0 else 'small'} by {abs(shift):.4g} everywhere."
    wrong = (y - e).abs() > rtol * e.abs().max()
    place = tuple(int(each) for each in torch.unravel_index((y - e).abs().argmax(), y.shape))
    values = f"there {y[place].item():.6g}, expected {e[place].item():.6g}"
    return f"differs in {int(wrong.sum())} of {wrong.numel()} places, most at {place}: {values}."


def times(yours: torch.Tensor, expected: torch.Tensor) -> float:
    """By what the expected tensor has to be multiplied to come nearest to yours (least squares)."""
    y, e = yours.detach().double(), expected.detach().double()
    return ((y * e).sum() / (e * e).sum()).item()


def show(value: Any) -> str:
    """A value in a line; of a large tensor its shape and where it begins."""
    if isinstance(value, torch.Tensor):
        first = ", ".join(f"{each:.4g}" for each in value.detach().flatten()[:4].tolist())
        return f"{tuple(value.shape)}: {first}{', ...' if value.numel() > 4 else ''}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)
