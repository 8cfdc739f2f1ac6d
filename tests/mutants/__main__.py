"""`python -m tests.mutants`: plant every fault, and print which test went red."""

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.mutants.faults import FAULTS, noticed

with tempfile.TemporaryDirectory() as folder:
    red = noticed(FAULTS, Path(folder))
table = Table("fault", "test that has to notice", "went red")
for fault, caught in zip(FAULTS, red, strict=True):
    table.add_row(fault.name, fault.caught_by, "yes" if caught else "NO")
Console().print(table)
sys.exit(not all(red))
