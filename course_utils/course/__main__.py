"""How does the whole course run? Executes the notebooks in order and writes them, with HTML pages, to `build/course/`.

python -m course_utils.course               # all four; executed copies, HTML and an index
python -m course_utils.course --in-place    # the same, and the executed notebooks replace those in notebooks/
"""

import argparse
import os
import sys
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError
from rich.console import Console

from course_utils.core import console
from course_utils.core.files import ROOT, notebooks, write_whole
from course_utils.course.execute import execute, state_cost
from course_utils.course.pages import index_page, page
from course_utils.course.readme import readme_pictures, write_readme
from course_utils.loading import default_model_dir

SECONDS, BYTES = 240, 4e9  # budget of one notebook on two CPU cores, with the model cached


def main() -> None:
    console.accept_all()
    parser = argparse.ArgumentParser(prog="python -m course_utils.course", description="Run the course.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks to run; all four by default")
    parser.add_argument("--in-place", action="store_true", help="also replace the notebooks by their executed copies")
    options = parser.parse_args()
    os.environ.setdefault("COURSE_PROFILE", "cpu")
    default_model_dir()  # fetched here, where its progress shows
    target = ROOT / "build" / "course"
    target.mkdir(parents=True, exist_ok=True)
    paths = [path.resolve() for path in options.notebooks] or notebooks()
    names, runs = [path.stem for path in notebooks()], []
    for path in paths:
        if not path.is_file():
            parser.error(f"there is no notebook {path}")
    screen = Console(highlight=False)
    for path in paths:
        with screen.status(f"{path.name} ..."):
            try:
                notebook, run = execute(path)
            except CellExecutionError as error:
                sys.exit(f"{path.name} failed:\n{error}")
        state_cost(notebook, run)
        over = " (over the budget of 4 min and 4 GB)" if run.seconds > SECONDS or run.peak > BYTES else ""
        screen.print(f"{path.name:24} {run.cost}{over}")
        text = nbformat.writes(notebook) + "\n"
        write_whole(target / path.name, text)
        write_whole(target / f"{path.stem}.html", page(notebook, names, path.stem))
        if options.in_place:
            write_whole(path, text)
            for name, picture in readme_pictures(notebook).items():
                write_whole(path.parent / name, picture)
        runs.append(run)
    if options.in_place:
        write_readme(notebooks())
    if not options.notebooks:
        write_whole(target / "index.html", index_page(runs))
        screen.print(f"{'all':24} {sum(run.seconds for run in runs) / 60:.1f} min; open {target / 'index.html'}")


if __name__ == "__main__":
    main()
