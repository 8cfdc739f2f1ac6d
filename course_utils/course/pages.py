"""How does the course look in a browser? One HTML page a notebook, and one that lists them."""

import html
import re
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from course_utils.course.execute import Run


def name(path: Path) -> str:
    """What the page of a notebook is called: with its folder where there is a 01 of exercises and one of solutions."""
    return f"{path.parent.name}_{path.stem}" if path.stem.isdigit() else path.stem


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
        f'<tr><td><a href="{name(run.path)}.html">{html.escape(run.title)}</a></td><td>{run.cost}</td>'
        f'<td><a href="{name(run.path)}.ipynb">notebook</a></td></tr>'
        for run in runs
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>LoRA, PEFT, QLoRA, Guanaco-style SFT</title>'
        "<style>body{font:16px/1.5 sans-serif;max-width:46em;margin:3em auto;padding:0 1em}td{padding:.3em 1em .3em 0}"
        f"</style></head><body><h1>LoRA, PEFT, QLoRA, Guanaco-style SFT</h1><table>{rows}</table></body></html>"
    )
