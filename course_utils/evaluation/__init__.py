"""Is it better, and what did it forget? Losses on held-out text, generated answers, and whether they stop."""

from course_utils.evaluation.answers import Answer, accuracy, generate, stop_rate
from course_utils.evaluation.drift import Predictions, drift, predictions
from course_utils.evaluation.losses import NLL, general_nll, nll, nll_each

__all__ = [
    "NLL",
    "Answer",
    "Predictions",
    "accuracy",
    "drift",
    "general_nll",
    "generate",
    "nll",
    "nll_each",
    "predictions",
    "stop_rate",
]
