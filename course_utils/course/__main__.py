"""How does the whole course run? Executes the notebooks in order and writes them, with HTML pages, to `build/course/`.

python -m course_utils.course               # the four lessons; executed copies, HTML and an index
python -m course_utils.course --all         # their deeper halves, the exercises and the solutions as well
python -m course_utils.course --in-place    # all, and the executed notebooks replace those in notebooks/
python -m course_utils.course --docs        # runs nothing: writes the generated parts of the documents
"""

import argparse
import os
import sys
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError
from rich.console import Console

from course_utils.core import console, files
from course_utils.core.files import ROOT, lessons, notebooks, write_whole
from course_utils.course import claims_page, datasheet, handout, kit, marks, pages, readme, rooms, sections, workbooks
from course_utils.course.execute import Run, execute, state_cost
from course_utils.loading import default_model_dir, load_tokenizer

SECONDS, BYTES = 240, 4e9  # budget of one notebook on two CPU cores, with the model cached


def write_docs() -> None:
    """Write what is generated from the executed notebooks, the data files and the package; say what has to be run."""
    for path in workbooks.write():
        print(f"{path.relative_to(ROOT)} was written; run it: python -m course_utils.course --in-place {path}")
    readme.write_readme()
    claims_page.write_page()
    marks.put_between(ROOT / "CONTRIBUTING.md", "rooms", rooms.markdown())
    statistics = datasheet.describe(load_tokenizer())
    marks.put_between(ROOT / "data" / "README.md", "statistics", f"```\n{statistics}\n```\n")
    kit.write()  # these two ask for the verdicts on certain claims
    handout.write_page()


def run(path: Path, target: Path, in_place: bool, order: list[str]) -> Run:
    """Execute a notebook; write the executed copy and its page to `target`, and with `in_place` the notebook itself.

    `order` holds the names of all that are run, to which the page links.
    """
    try:
        notebook, done = execute(path)
    except CellExecutionError as error:
        sys.exit(f"{path.name} failed:\n{error}")
    state_cost(notebook, done)
    text = nbformat.writes(notebook) + "\n"
    name = pages.name(path)
    write_whole(target / f"{name}.ipynb", text)
    write_whole(target / f"{name}.html", pages.page(notebook, order, name))
    if in_place:
        write_whole(path, text)
        if any(path.samefile(lesson) for lesson in lessons()):
            sections.keep(path.stem, done.sections)
        for file, picture in readme.pictures(notebook).items():
            write_whole(path.parent / file, picture)
    return done


def main() -> None:
    console.accept_all()
    parser = argparse.ArgumentParser(prog="python -m course_utils.course", description="Run the course.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks to run; the four lessons by default")
    parser.add_argument("--all", action="store_true", help="run the deeper halves and the exercises as well")
    parser.add_argument("--in-place", action="store_true", help="run all, and replace them by their executed copies")
    parser.add_argument("--docs", action="store_true", help="run nothing; write the generated parts of the documents")
    options = parser.parse_args()
    if options.docs:
        write_docs()
        return
    everything = options.all or options.in_place
    if options.in_place:
        workbooks.write()
    every = [*notebooks(), *files.workbooks()] if everything else lessons()
    paths = [path.resolve() for path in options.notebooks] or every
    for path in paths:
        if not path.is_file():
            parser.error(f"there is no notebook {path}")
    os.environ.setdefault("COURSE_PROFILE", "cpu")
    default_model_dir()  # fetched here, where its progress shows
    target, screen, runs = ROOT / "build" / "course", Console(highlight=False), []
    for path in paths:
        with screen.status(f"{path.name} ..."):
            runs.append(run(path, target, options.in_place, [pages.name(other) for other in paths]))
        over = " (over the budget of 4 min and 4 GB)" * (runs[-1].seconds > SECONDS or runs[-1].peak > BYTES)
        screen.print(f"{pages.name(path):24} {runs[-1].cost}{over}")
    if options.in_place:
        write_docs()
    if not options.notebooks:
        write_whole(target / "index.html", pages.index_page(runs))
        screen.print(f"{'all':24} {sum(done.seconds for done in runs) / 60:.1f} min; open {target / 'index.html'}")


if __name__ == "__main__":
    main()
