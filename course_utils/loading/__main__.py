"""Does the default model lie here? `python -m course_utils.loading` fetches it, or finds it in the cache."""

import argparse
import sys

from course_utils.core import console
from course_utils.loading.cache import NAME, ModelCacheError, default_model_dir

if __name__ == "__main__":
    console.accept_all()
    parser = argparse.ArgumentParser(prog="python -m course_utils.loading", description="Fetch the default model.")
    parser.parse_args()
    try:
        print(f"{NAME} is ready in {default_model_dir()}")
    except ModelCacheError as error:
        sys.exit(f"{parser.prog}: {error}")
