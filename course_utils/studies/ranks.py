"""How much rank does a task take that is not at its ceiling? Two ranks beside the one of `forgetting`, at its rates."""

from course_utils.studies import dates, forgetting
from course_utils.studies.records import Study, grid
from course_utils.training import LORA

STUDY = Study(
    "ranks",
    grid(forgetting.ADDITION, seed=forgetting.SEEDS, lr=[3e-4, 1e-3], adapter=[{**LORA, "r": r} for r in (1, 64)]),
    dates.run,
    dates.SCORING,
    ("tasks/addition.jsonl", "passages.jsonl"),
)
