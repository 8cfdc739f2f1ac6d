"""Can every text be printed on this console? After `accept_all`, yes."""

import io
import sys


def accept_all() -> None:
    """Let a console without Unicode (cp1252 on Windows) show `?` for what it lacks, where it would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
