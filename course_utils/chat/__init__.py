"""What text, and which labels, does the model see?"""

from course_utils.chat.encoding import (
    IGNORE,
    TEMPLATES,
    Example,
    Template,
    cut_at_special,
    encode,
    encode_all,
    encode_answers,
    encode_prompt,
    encode_text,
    end_id,
    question,
    render,
    top_thread,
)
from course_utils.chat.shapes import as_thread, load_threads
from course_utils.chat.threads import Turn, normalized, text_problem

__all__ = [
    "IGNORE",
    "TEMPLATES",
    "Example",
    "Template",
    "Turn",
    "as_thread",
    "cut_at_special",
    "encode",
    "encode_all",
    "encode_answers",
    "encode_prompt",
    "encode_text",
    "end_id",
    "load_threads",
    "normalized",
    "question",
    "render",
    "text_problem",
    "top_thread",
]
