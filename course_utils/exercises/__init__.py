"""Is my answer right, and if not, which mistake is it?"""

from course_utils.exercises.checker import check

__all__ = ["check"]
