"""How does one notebook run, and what does it take?"""

import re
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from course_utils.course.sections import seconds, title
from course_utils.course.tidy import KERNEL, tidy

MEASURED = re.compile(r"^\*Measured .*\*$", re.MULTILINE)
CELL_TIMEOUT = 600


@dataclass
class Run:
    """One executed notebook: `seconds` of wall-clock time and the highest resident memory of its kernel, in bytes.

    `sections` has the seconds of each section that has code.
    """

    path: Path
    title: str
    seconds: float
    peak: int
    sections: dict[str, float] = field(default_factory=dict)

    @property
    def cost(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        return f"{minutes} min {seconds:02} s, peak memory {self.peak / 1e9:.1f} GB"


class ThisPython(KernelSpecManager):
    """The kernel `python3` is the Python that runs this, whatever kernel of that name a user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name == NATIVE_KERNEL_NAME:
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())
        return super().get_kernel_spec(kernel_name)


def execute(path: Path, kernels: KernelSpecManager | None = None) -> tuple[nbformat.NotebookNode, Run]:
    """Run a notebook from top to bottom in a fresh kernel, in the folder it lies in.

    Args:
        kernels: says which Python is the kernel; by default, the one that runs this.

    Raises:
        CellExecutionError: a cell failed; its message shows the cell and the error.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    kernel = AsyncKernelManager(kernel_spec_manager=kernels or ThisPython())
    place = {"metadata": {"path": path.parent}}
    client = NotebookClient(notebook, km=kernel, timeout=CELL_TIMEOUT, record_timing=True, resources=place)
    start, peak, stop = time.perf_counter(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            try:
                pid = kernel.provisioner.pid if kernel.provisioner else None
                if pid:
                    peak[0] = max(peak[0], psutil.Process(pid).memory_info().rss)
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        # the kernel's own log lines are not shown; a cell's stderr is in its outputs
        client.execute(cleanup_kc=True, stderr=subprocess.DEVNULL)
    finally:
        stop.set()
        watcher.join()
    sections = seconds(notebook)  # before its timestamps are tidied away
    tidy(notebook)
    return notebook, Run(path, title(notebook), time.perf_counter() - start, peak[0], sections)


def state_cost(notebook: nbformat.NotebookNode, run: Run) -> None:
    """Write the measured time and memory into the notebook's first cell."""
    first = notebook.cells[0]
    line = f"*Measured on two CPU cores with the model cached: {run.cost}.*"
    if not MEASURED.search(first.source):
        raise ValueError(f"{run.path.name}: the first cell needs a line of the form '*Measured ...*'.")
    first.source = MEASURED.sub(line, first.source)
