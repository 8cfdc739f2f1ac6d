"""Can I use what the lesson on LoRA taught?"""

NUMBER = "01"
LESSON = (
    "lora_embedding",
    "swap_adapter",
    "trained_parameters",
    "kept_bytes",
    "noticed",
    "accepts_merge",
    "equally_good",
    "choose_rate",
    "fitting_setup",
)
DEEPER = ("correlation_at_a_rate", "same_training")
IMPORTS = """\
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import exercises, intervals, memory, studies"""
