"""Does the default model lie here? `python -m course_utils.loading` fetches it, or finds it in the cache."""

from course_utils.core import console
from course_utils.loading.cache import NAME, default_model_dir

if __name__ == "__main__":
    console.accept_all()
    print(f"{NAME} is ready in {default_model_dir()}")
