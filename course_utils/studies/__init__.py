"""Does it hold over seeds and settings?"""

from course_utils.studies.dates import DATES_STEPS, WATCHED
from course_utils.studies.records import Study, record, table

__all__ = ["DATES_STEPS", "WATCHED", "Study", "record", "table"]
