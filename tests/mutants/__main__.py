"""`python -m tests.mutants`: plant every fault, and print which test went red."""

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.mutants.faults import FAULTS, goes_red

table = Table("fault", "test that has to notice", "went red")
red = []
for fault in FAULTS:
    with tempfile.TemporaryDirectory() as folder:
        red.append(goes_red(fault, Path(folder)))
    table.add_row(fault.name, fault.caught_by, "yes" if red[-1] else "NO")
Console().print(table)
sys.exit(not all(red))
