"""How does the whole course run? Executes the notebooks in order and writes them, with HTML pages, to `build/course/`.

python -m course_utils.course               # all four; executed copies, HTML and an index
python -m course_utils.course --in-place    # the same, and the executed notebooks replace those in notebooks/
"""

import argparse
import base64
import html
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from rich.console import Console

from course_utils import claims, console
from course_utils.datafiles import write_whole
from course_utils.model_cache import default_model_dir

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
SECONDS, BYTES = 240, 4e9  # budget of one notebook on two CPU cores, with the model cached
MEASURED = re.compile(r"^\*Measured .*\*$", re.MULTILINE)
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
CELL_TIMEOUT = 600
README_PICTURES = {"learning_against_forgetting.png": "at accuracy", "five_methods.png": "prefix tuning over"}


@dataclass
class Run:
    """One executed notebook: `seconds` of wall-clock time and the highest resident memory of its kernel, in bytes."""

    path: Path
    title: str
    seconds: float
    peak: int

    @property
    def cost(self) -> str:
        return f"{self.seconds // 60:.0f} min {self.seconds % 60:02.0f} s, peak memory {self.peak / 1e9:.1f} GB"


class ThisPython(KernelSpecManager):
    """The kernel `python3` is the Python that runs this, whatever kernel of that name a user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name == NATIVE_KERNEL_NAME:
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())
        return super().get_kernel_spec(kernel_name)


def execute(path: Path) -> tuple[nbformat.NotebookNode, Run]:
    """Run a notebook from top to bottom in a fresh kernel of this Python, in the folder it lies in.

    Raises:
        CellExecutionError: a cell failed; its message shows the cell and the error.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    kernel = AsyncKernelManager(kernel_spec_manager=ThisPython())
    place = {"metadata": {"path": path.parent}}
    client = NotebookClient(notebook, km=kernel, timeout=CELL_TIMEOUT, record_timing=False, resources=place)
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
    tidy(notebook)
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    return notebook, Run(path, title, time.perf_counter() - start, peak[0])


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Take chance out of the outputs: one stream each, progress bars as their last line, no stray metadata."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        streams: dict[str, nbformat.NotebookNode] = {}
        outputs = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name in streams:
                streams[output.name].text += output.text
                continue
            if output.output_type == "stream":
                streams[output.name] = output
            outputs.append(output)
        for stream in streams.values():
            stream.text = re.sub(r"^.*\r(?=[^\n])", "", stream.text, flags=re.MULTILINE).lstrip("\r\n")
        cell.outputs = outputs


def state_cost(notebook: nbformat.NotebookNode, run: Run) -> None:
    """Write the measured time and memory into the notebook's first cell."""
    first = notebook.cells[0]
    line = f"*Measured on two CPU cores with the model cached: {run.cost}.*"
    if not MEASURED.search(first.source):
        raise ValueError(f"{run.path.name}: the first cell needs a line of the form '*Measured ...*'.")
    first.source = MEASURED.sub(line, first.source)


def readme_pictures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """The pictures of a notebook that the README shows, by file name; they are known by words of their alt text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    return {
        name: base64.b64decode(output.data["image/png"])
        for output in outputs
        for name, words in README_PICTURES.items()
        if words in output.metadata.get("image/png", {}).get("alt", "")
    }


def page(notebook: nbformat.NotebookNode, runs: list[str], name: str) -> str:
    """The notebook as one HTML page, with links to its neighbors."""
    body, _ = HTMLExporter().from_notebook_node(notebook)
    index = runs.index(name)
    links = ['<a href="index.html">All notebooks</a>']
    links += [f'<a href="{runs[index - 1]}.html">Previous</a>'] if index else []
    links += [f'<a href="{runs[index + 1]}.html">Next</a>'] if index + 1 < len(runs) else []
    bar = f'<nav style="font-family:sans-serif;padding:1em 2em">{" · ".join(links)}</nav>'
    body = re.sub(r"<title>.*?</title>", f"<title>{html.escape(name)}</title>", body, count=1, flags=re.DOTALL)
    return re.sub(r"(<body[^>]*>)", lambda found: found[1] + bar, body, count=1)


def index_page(runs: list[Run]) -> str:
    """The page that lists all notebooks with what each took."""
    rows = "".join(
        f'<tr><td><a href="{run.path.stem}.html">{html.escape(run.title)}</a></td><td>{run.cost}</td>'
        f'<td><a href="{run.path.name}">notebook</a></td></tr>'
        for run in runs
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>LoRA, PEFT, QLoRA, Guanaco-style SFT</title>'
        "<style>body{font:16px/1.5 sans-serif;max-width:46em;margin:3em auto;padding:0 1em}td{padding:.3em 1em .3em 0}"
        f"</style></head><body><h1>LoRA, PEFT, QLoRA, Guanaco-style SFT</h1><table>{rows}</table></body></html>"
    )


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
    paths = [path.resolve() for path in options.notebooks] or NOTEBOOKS
    names, runs = [path.stem for path in NOTEBOOKS], []
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
        claims.write_readme(NOTEBOOKS)
    if not options.notebooks:
        write_whole(target / "index.html", index_page(runs))
        screen.print(f"{'all':24} {sum(run.seconds for run in runs) / 60:.1f} min; open {target / 'index.html'}")


if __name__ == "__main__":
    main()
