"""`python -m tests.bench`: how fast is the recipe here? Writes build/bench.json and a plot, and prints a table."""

import json

from course_utils.core import files
from tests.bench import speed

if __name__ == "__main__":  # the variants run in processes of their own, which read this file, too
    rows = speed.main()
    files.write_whole(files.ROOT / "build" / "bench.json", json.dumps(rows, indent=1))
