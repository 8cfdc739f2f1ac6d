"""Can I use what the lesson on QLoRA taught?"""

NUMBER = "03"
LESSON = (
    "normal_float",
    "bytes_in_4_bits",
    "qlora_backward",
    "diagnose",
    "accepts_qlora_merge",
    "seeds_to_decide",
    "fitting_33b",
)
DEEPER = ("twice_checkpointed", "unstated_settings")
IMPORTS = """\
import functools
import itertools
import math
from collections.abc import Callable
from statistics import NormalDist, fmean, stdev

import bitsandbytes.functional as bnb
import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from course_utils import exercises, memory"""
