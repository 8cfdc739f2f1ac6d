"""Does it hold over seeds and settings?"""

from course_utils.studies import answers, guanaco, qlora
from course_utils.studies.dates import DATES, WATCHED
from course_utils.studies.forgetting import looks
from course_utils.studies.methods import METHODS, file_bytes
from course_utils.studies.placement import PLACES
from course_utils.studies.records import Study, grid, record, table

__all__ = [
    "DATES",
    "METHODS",
    "PLACES",
    "WATCHED",
    "Study",
    "answers",
    "file_bytes",
    "grid",
    "guanaco",
    "looks",
    "qlora",
    "record",
    "table",
]
