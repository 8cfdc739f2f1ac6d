"""Which runs are still missing? Makes them.

python -m course_utils.studies              # all studies that are not complete yet
python -m course_utils.studies reply_ranks  # one of them
"""

import argparse
from statistics import median

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from course_utils import machine
from course_utils.core import console
from course_utils.studies import (
    answers,
    dates,
    equal_quality,
    forgetting,
    guanaco,
    methods,
    off_ceiling,
    placement,
    precisions,
    qlora,
    ranks,
    record,
    reply_ranks,
    shipped,
    tasks,
)
from course_utils.studies.records import Study

STUDIES = {
    module.STUDY.name: module.STUDY
    for module in (
        dates,
        reply_ranks,
        tasks,
        off_ceiling,
        equal_quality,
        forgetting,
        ranks,
        methods,
        placement,
        precisions,
        qlora,
        guanaco,
        answers,
        shipped,
    )
}


def announced(study: Study) -> str:
    """How much is to be done, and how long it may take: by the records that there are, or as was expected."""
    minutes = [line["seconds"] / 60 for line in study.done()] or [study.minutes] * bool(study.minutes)
    missing = len(study.open())
    each = f", about {median(minutes):.1f} minutes each, {missing * median(minutes) / 60:.1f} hours" if minutes else ""
    return f"{study.name}: {missing} of {len(study.recipes)} runs are missing{each}"


def main() -> None:
    console.accept_all()
    machine.keep_freed_memory()
    parser = argparse.ArgumentParser(prog="python -m course_utils.studies", description="Run studies.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(STUDIES)}; all by default")
    names = parser.parse_args().names or list(STUDIES)
    if unknown := set(names) - set(STUDIES):
        parser.error(f"unknown study {', '.join(sorted(unknown))}; choose from {', '.join(STUDIES)}")
    for name in names:
        print(announced(STUDIES[name]))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=True)) as progress:
        for study in (STUDIES[name] for name in names):
            waiting, total = study.open(), len(study.recipes)
            task = progress.add_task(study.name, total=total, completed=total - len(waiting))
            for recipe in waiting:
                record(study, recipe)
                progress.advance(task)


if __name__ == "__main__":
    main()
