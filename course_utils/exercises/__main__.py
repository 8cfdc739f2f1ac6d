"""Where do I write my answers? Into copies of the exercises, which git and the tests leave alone."""

import argparse

from course_utils.core import console, files


def main(arguments: list[str] | None = None) -> None:
    """Copy the exercises to `notebooks/mine/`; a copy that is there is left as it is."""
    console.accept_all()
    parser = argparse.ArgumentParser(prog="python -m course_utils.exercises", description=main.__doc__)
    parser.parse_args(arguments)
    files.require_clone(parser.prog)
    for path in files.workbooks("exercises"):
        copy = files.ROOT / "notebooks" / "mine" / path.name
        if copy.exists():
            print(f"{copy} is there and stays as it is; move it away to start again.")
        else:
            files.write_whole(copy, path.read_bytes())
            print(f"{copy} is yours: open it with `make lab`, or in any Jupyter.")


if __name__ == "__main__":
    main()
