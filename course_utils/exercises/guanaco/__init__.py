"""Can I use what the lesson on Guanaco-style fine-tuning taught?"""

NUMBER = "04"
LESSON = (
    "answer_labels",
    "second_best_thread",
    "step_loss",
    "rate_of_step",
    "unnoticed",
    "accepts_collate",
    "fewest_rows",
    "preferred",
)
DEEPER = ("after_a_day", "gap_and_place", "both_orders_asked")
IMPORTS = """\
import math
from collections.abc import Callable

import pandas as pd
import torch
from scipy import stats
from torch.nn.functional import cross_entropy

from course_utils import chat, datafiles, exercises, loading, tournament, training"""
