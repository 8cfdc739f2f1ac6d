"""Helpers of the course "LoRA, PEFT, QLoRA and Guanaco-style SFT": loading, memory reporting, training, evaluation.

Importing the package is cheap and imports no torch; each module is imported where it is needed:

    from course_utils import loading, memory, training
"""

__version__ = "0.1.0"
