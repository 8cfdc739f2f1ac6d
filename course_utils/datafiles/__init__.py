"""What is there to learn from, and be measured on?"""

from course_utils.core.rows import DataError
from course_utils.datafiles.collection import (
    load_conversations,
    load_figures,
    load_passage_kinds,
    load_passages,
    load_prompts,
    shipped_adapter,
)
from course_utils.datafiles.tasks import load_task
from course_utils.datafiles.trees import SPLITS, Message, split_of

__all__ = [
    "SPLITS",
    "DataError",
    "Message",
    "load_conversations",
    "load_figures",
    "load_passage_kinds",
    "load_passages",
    "load_prompts",
    "load_task",
    "shipped_adapter",
    "split_of",
]
