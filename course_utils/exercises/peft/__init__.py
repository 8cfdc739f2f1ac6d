"""Can I use what the lesson on PEFT taught?"""

NUMBER = "02"
LESSON = (
    "merged_ia3",
    "prefix_attention",
    "rotation_parameters",
    "first_noticed",
    "accepts_adapter",
    "clear_gaps",
)
DEEPER = ("fitting_places", "needed_rank")
IMPORTS = """\
import itertools
import math

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, OFTConfig, get_peft_model
from scipy import stats
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import exercises, intervals, memory, studies"""
