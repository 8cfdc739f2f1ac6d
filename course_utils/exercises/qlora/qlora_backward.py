"""What comes back through a frozen 4-bit layer?

A layer of QLoRA computes `y = x W.T + lora_alpha / r * x A.T B.T`. Its frozen `W`, of shape (d_out, d_in), is stored in
4 bits: `packed` and `state`, from which `bnb.dequantize_4bit(packed, state)` restores it. `A` of shape (r, d_in) and
`B` of shape (d_out, r) are trained. In the backward pass the layer gets `dy`, the gradient of the loss with respect to
`y`, a row for each row of `x`.

Write what it hands back, without autograd: a dict with the gradients of the loss with respect to `x`, `A` and `B`,
each of the shape of what it belongs to. For the packed weights there is none. The lesson showed that the gradient of
`x` is what the layers below live on. Before you run anything: how much of it would be left at the start of training,
where `B` is zero, if it came through the adapter alone?
"""

import bitsandbytes.functional as bnb
import torch

from course_utils.exercises.exercise import Exercise


def qlora_backward(
    x: torch.Tensor,
    packed: torch.Tensor,
    state: bnb.QuantState,
    A: torch.Tensor,
    B: torch.Tensor,
    lora_alpha: float,
    dy: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Gradients of the loss with respect to x, A and B. x: (n, d_in), dy: (n, d_out)."""
    scaled = lora_alpha / len(A) * dy  # both ways through the adapter begin with it
    return {
        "x": dy @ bnb.dequantize_4bit(packed, state) + scaled @ B @ A,
        "A": (scaled @ B).T @ x,
        "B": scaled.T @ (x @ A.T),
    }


def cases() -> dict[str, tuple]:
    torch.manual_seed(0)

    def case(r: int, lora_alpha: float, started: bool = True) -> tuple:
        packed, state = bnb.quantize_4bit(torch.randn(6, 64), blocksize=64, quant_type="nf4")
        A, B = torch.randn(r, 64) / 8, 0.1 * torch.randn(6, r) * started
        return torch.randn(5, 64), packed, state, A, B, lora_alpha, torch.randn(5, 6)

    return {
        "an adapter on its way": case(2, 8.0),
        "an adapter at its start, where B is zero": case(2, 8.0, started=False),
        "r = 3 and lora_alpha = 3": case(3, 3.0),
    }


def through_the_adapter(x, packed, state, A, B, lora_alpha, dy):
    found = qlora_backward(x, packed, state, A, B, lora_alpha, dy)
    return found | {"x": lora_alpha / len(A) * dy @ B @ A}


def through_the_weights(x, packed, state, A, B, lora_alpha, dy):
    found = qlora_backward(x, packed, state, A, B, lora_alpha, dy)
    return found | {"x": dy @ bnb.dequantize_4bit(packed, state)}


def no_scaling(x, packed, state, A, B, lora_alpha, dy):
    return qlora_backward(x, packed, state, A, B, float(len(A)), dy)


def scaling_of_x_alone(x, packed, state, A, B, lora_alpha, dy):
    found = no_scaling(x, packed, state, A, B, lora_alpha, dy)
    return found | {"x": qlora_backward(x, packed, state, A, B, lora_alpha, dy)["x"]}


def all_scaled(x, packed, state, A, B, lora_alpha, dy):
    return qlora_backward(x, packed, state, A, B, float(len(A)), lora_alpha / len(A) * dy)


def mean_of_rows(x, packed, state, A, B, lora_alpha, dy):
    found = qlora_backward(x, packed, state, A, B, lora_alpha, dy)
    return found | {name: found[name] / len(x) for name in "AB"}


def by_autograd(x, packed, state, A, B, lora_alpha, dy):
    x, A, B = (tensor.clone().requires_grad_() for tensor in (x, A, B))
    y = torch.nn.functional.linear(x, bnb.dequantize_4bit(packed, state) + lora_alpha / len(A) * B @ A)
    return dict(zip("xAB", torch.autograd.grad(y, (x, A, B), dy), strict=True))


EXERCISE = Exercise(
    answer=qlora_backward,
    kind="write it",
    difficulty=2,
    minutes=12,
    cases=cases,
    mistakes={
        through_the_adapter: "The gradient of {part} is off by {off:.0f} %, in {wrong} of {cases} inputs: what comes "
        "through the frozen weights is missing. They keep no gradient; they pass one on.",
        through_the_weights: "The gradient of {part} is off by {off:.0f} %, in {wrong} of {cases} inputs: what comes "
        "through the adapter is missing. (It is right where B is zero.)",
        no_scaling: "{parts} of {all_parts} gradients are wrong, that of {part} by {off:.0f} %: the way through the "
        "adapter lacks lora_alpha / r. (Where that is 1, all are right.)",
        scaling_of_x_alone: "The gradient of {part} is {ratio:.3g} of what it should be: lora_alpha / r stands before "
        "B A in the forward pass, so it is in the gradients of A and B as well.",
        all_scaled: "The gradient of {part} is off by {off:.0f} %: what comes through the frozen weights was "
        "multiplied by lora_alpha / r, which belongs to the adapter alone.",
        mean_of_rows: "The gradient of {part} is {ratio:.3g} of what it should be: it was divided by the number of "
        "rows. `dy` comes from the loss, which has taken its mean already; here rows are added up.",
    },
    hints=(
        "Two ways lead from y back to x, one through W and one through B and A; their gradients add up. Check the "
        "shapes: which product of dy and W has the shape of x?",
        "For y = x M.T the gradient of x is dy M, and that of M is dy.T x. Use it for W, for B with the input x A.T, "
        "and for A, to which the gradient scaling * dy B arrives.",
    ),
    alternatives=(by_autograd,),
)
