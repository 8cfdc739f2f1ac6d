"""How does the whole course run? Executes the notebooks in order, and builds the site in `build/course/`.

python -m course_utils.course               # the four lessons; executed copies in build/notebooks/, and the site
python -m course_utils.course --all         # their deeper halves, the exercises and the solutions as well
python -m course_utils.course --in-place    # all, and the executed notebooks replace those in notebooks/
python -m course_utils.course --docs        # runs nothing: writes the generated parts of the documents
python -m course_utils.course --site        # runs nothing: builds the site of the stored notebooks
python -m course_utils.course --publish https://github.com/owner/name   # runs nothing: writes the public address
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError
from nbformat import ValidationError
from nbformat.reader import NotJSONError
from rich.console import Console

from course_utils.core import console, files
from course_utils.core.files import ROOT, lessons, notebooks, write_whole
from course_utils.course import (
    claims_page,
    datasheet,
    handout,
    kit,
    marks,
    publish,
    readme,
    rooms,
    sections,
    site,
    workbooks,
)
from course_utils.course.execute import MEASURED, Run, execute, state_cost
from course_utils.loading import default_model_dir, load_tokenizer

SECONDS, BYTES = 240, 4e9  # budget of one notebook on two CPU cores, with the model cached


def write_docs() -> None:
    """Write what is generated from the executed notebooks, the data files and the package; say what has to be run."""
    say_written(workbooks.write())
    readme.write_readme()
    publish.write_readme()
    claims_page.write_page()
    marks.put_between(ROOT / "CONTRIBUTING.md", "rooms", rooms.markdown())
    statistics = datasheet.describe(load_tokenizer())
    marks.put_between(ROOT / "data" / "README.md", "statistics", f"```\n{statistics}\n```\n")
    kit.write()  # these two ask for the verdicts on certain claims
    handout.write_page()


def say_written(paths: Iterable[Path]) -> None:
    """These notebooks are new, and have no outputs yet."""
    for path in paths:
        print(f"{path.relative_to(ROOT)} was written; run it: python -m course_utils.course --in-place {path}")


def unfit(path: Path) -> str:
    """Why a file cannot be run as a notebook of the course; nothing if it can."""
    if not path.is_file():
        return f"there is no notebook {path}"
    try:
        cells = nbformat.read(path, as_version=4).cells
    except (NotJSONError, ValidationError, UnicodeDecodeError) as error:
        return f"{path} is no notebook: {str(error).splitlines()[0][:80]}"
    fits = cells and MEASURED.search(cells[0].source)
    return (
        "" if fits else f"{path}: its first cell needs a line '*Measured ...*', into which time and memory are written"
    )


def run(path: Path, target: Path, in_place: bool) -> Run:
    """Execute a notebook; write the executed copy to `target`, and with `in_place` over the notebook itself."""
    try:
        notebook, done = execute(path)
    except CellExecutionError as error:
        sys.exit(f"{path.name} failed:\n{error}")
    state_cost(notebook, done)
    text = nbformat.writes(notebook) + "\n"
    write_whole(target, text)
    if in_place:
        write_whole(path, text)
        if any(path.samefile(lesson) for lesson in lessons()):
            sections.keep(path.stem, done.sections)
        for file, picture in readme.pictures(notebook).items():
            write_whole(path.parent / file, picture)
    return done


def run_all(paths: list[Path], in_place: bool, with_site: bool) -> None:
    """Execute notebooks in order, and print what each took; then write the documents, or the site, as far as asked."""
    os.environ.setdefault("COURSE_PROFILE", "cpu")
    default_model_dir()  # fetched here, where its progress shows
    screen, minutes = Console(highlight=False), 0.0
    executed = {path: ROOT / "build" / "notebooks" / f"{site.name(path)}.ipynb" for path in paths}
    for path in paths:
        with screen.status(f"{path.name} ..."):
            done = run(path, executed[path], in_place)
        over = " (over the budget of 4 min and 4 GB)" * (done.seconds > SECONDS or done.peak > BYTES)
        screen.print(f"{site.name(path):24} {done.cost}{over}")
        minutes += done.seconds / 60
    if in_place:
        write_docs()
    if with_site:
        screen.print(f"{'all':24} {minutes:.1f} min")
        build_site(executed)


def build_site(executed: dict[Path, Path]) -> None:
    """Build the site, with these executed copies in the place of the stored notebooks, and say where it is."""
    site.build(ROOT / "build" / "course", executed)
    print(f"open {ROOT / 'build' / 'course' / 'index.html'}")


def main() -> None:
    console.accept_all()
    files.require_clone("python -m course_utils.course")
    parser = argparse.ArgumentParser(prog="python -m course_utils.course", description="Run the course.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks to run; the four lessons by default")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--all", action="store_true", help="run the deeper halves and the exercises as well")
    way.add_argument("--in-place", action="store_true", help="run all, and replace them by their executed copies")
    way.add_argument("--docs", action="store_true", help="run nothing; write the generated parts of the documents")
    way.add_argument("--site", action="store_true", help="run nothing; build the site of the stored notebooks")
    way.add_argument("--publish", metavar="ADDRESS", help="run nothing; write the public address of the repository")
    options = parser.parse_args()
    named = [path.resolve() for path in options.notebooks]
    if named and (options.all or options.docs or options.site or options.publish is not None):
        parser.error("name notebooks alone, or with --in-place")
    if wrong := list(filter(None, map(unfit, named))):
        parser.error(wrong[0])
    if options.in_place:
        say_written([path for path in workbooks.write() if named and path not in named])
    paths = named or ([*notebooks(), *files.workbooks()] if options.all or options.in_place else lessons())
    try:
        if options.publish is not None:
            publish.publish(options.publish)
            print(f"Written: {publish.address()}. Commit the change, and push it there.")
        elif options.docs:
            write_docs()
        elif options.site:
            build_site({})
        else:
            if not options.notebooks:
                site.check()
            run_all(paths, options.in_place, with_site=not options.notebooks)
    except (publish.AddressError, site.SiteError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
