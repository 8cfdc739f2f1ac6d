"""What does a second level of checkpoints buy?

The second half of the lesson counted what `layers` layers keep, if one keeps `a` GB while it is at work and its input
has `i`: with a checkpoint for each layer `layers * i + a`, and with segments of `s` layers all inputs of segments, and
one whole segment.

Now both. Of each segment its input is kept. When the backward pass arrives at a segment, it is computed again, and the
inputs of its layers are kept (that of its first layer is there already). From these each layer is computed once more
when its turn comes. At the worst moment there are the inputs of all segments, those of the other layers of the longest
segment, and the one layer at work. With the best `s` there is, how many GB is that?

Before you run anything: 80 layers with a = 1.12 and i = 0.034 keep 3.8 GB with a checkpoint for each layer, and 3.6 GB
with the best segments. What is your guess? (The price is time: each layer is computed forward three times.)
"""

import math

from course_utils.exercises.exercise import Exercise


def twice_checkpointed(layers: int, a: float, i: float) -> float:
    """GB kept at the worst moment, with the best length of the segments."""
    return min((math.ceil(layers / s) + s - 1) * i + a for s in range(1, layers + 1))


def cases() -> dict[str, tuple[int, float, float]]:
    return {
        "LLaMA-65B, 2,048 tokens": (80, 1.12, 0.034),
        "16 layers": (16, 1.0, 0.1),
        "one layer": (1, 0.5, 0.25),
        "seven layers whose inputs are large": (7, 0.5, 0.4),
    }


def _best(layers: int, kept) -> float:
    return min(kept(s) for s in range(1, layers + 1))


def whole_segment_at_work(layers, a, i):
    return _best(layers, lambda s: math.ceil(layers / s) * i + s * a)


def one_level(layers, a, i):
    return layers * i + a


def first_input_twice(layers, a, i):
    return _best(layers, lambda s: (math.ceil(layers / s) + s) * i + a)


def layer_forgotten(layers, a, i):
    return _best(layers, lambda s: (math.ceil(layers / s) + s - 1) * i)


def rounded_down(layers, a, i):
    return _best(layers, lambda s: (layers // s + s - 1) * i + a)


def not_rounded(layers, a, i):
    return (2 * math.sqrt(layers) - 1) * i + a


def inputs_of_segments_alone(layers, a, i):
    return _best(layers, lambda s: math.ceil(layers / s) * i + a)


def by_the_root(layers, a, i):
    return (math.ceil(2 * math.sqrt(layers)) - 1) * i + a


EXERCISE = Exercise(
    answer=twice_checkpointed,
    kind="predict it",
    difficulty=2,
    minutes=8,
    cases=cases,
    mistakes={
        whole_segment_at_work: "{yours:.2f} GB instead of {expected:.2f}: that is one level, where a segment at work "
        "keeps `a` for each of its layers. With two it keeps an input for each, and `a` once.",
        one_level: "{yours:.2f} GB instead of {expected:.2f}: the inputs of all layers are kept at once. Those inside "
        "of a segment are there only while it is at work.",
        first_input_twice: "{difference:.3f} GB too many: a segment begins with its first layer, so their inputs are "
        "one tensor.",
        layer_forgotten: "{yours:.2f} GB instead of {expected:.2f}: the layer at work keeps `a`, too.",
        rounded_down: "Wrong for {wrong} of {cases} models: layers / s was rounded down. What is left over is a "
        "shorter segment, and has an input as well.",
        not_rounded: "Wrong for {wrong} of {cases} models: right where the root of the layers is whole. There are no "
        "parts of segments; round layers / s up.",
        inputs_of_segments_alone: "{yours:.2f} GB instead of {expected:.2f}: the segment at work keeps an input for "
        "each of its layers. Without these the best segment would be the whole model.",
    },
    hints=(
        "Take 16 layers in segments of 4, and write down what is kept when the backward pass enters the last of them.",
        "It is ceil(layers / s) inputs of segments, s - 1 more inside of the one at work, and `a` once. Try every s "
        "from 1 to the number of layers.",
    ),
    alternatives=(by_the_root,),
)
