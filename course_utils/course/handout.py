"""What would a student pin to the wall? Two printed pages, of what was measured and what to set tomorrow."""

import re
from pathlib import Path

import nbformat
from jinja2 import Environment
from markupsafe import Markup

from course_utils.core.files import notebook, write_whole
from course_utils.course import tables
from course_utils.course.kit import KIT, verdicts_on
from course_utils.course.sections import title

CHOSEN = {  # by lesson, the verdicts that change what one does
    "01_lora": ("M9", "F4", "M19", "L19"),
    "02_peft": ("L22", "P5", "P6", "M7"),
    "03_qlora": ("M5", "F30", "Q10", "M10", "M2"),
    "04_guanaco_sft": ("M11", "M14", "M15", "F36"),
}
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>LoRA, PEFT, QLoRA, SFT: what was measured, and what to set tomorrow</title>
<style>
@page { margin: 12mm }
body { font: 9pt/1.25 sans-serif; color: black; background: white; max-width: 186mm; margin: 0 auto }
h1 { font-size: 14pt; margin: 0 }
h2 { font-size: 11pt; margin: 2.5mm 0 1mm; break-after: avoid }
h2:nth-of-type(3) { break-before: page }
p { margin: 1mm 0 }
table { width: 100%; border-collapse: collapse; table-layout: fixed; margin-bottom: 1mm }
th, td { text-align: left; vertical-align: top; padding: 0.3mm 1mm; border-bottom: 0.5pt solid gray }
th { font-weight: normal; font-style: italic }
td:last-child { font-weight: bold }
tr { break-inside: avoid }
code { font-size: 8pt }
</style>
</head>
<body>
<h1>What was measured, and what to set tomorrow</h1>
<p>Measured on one small language model (135 million parameters), in few steps, on two CPU cores, or read from published
tables. Statements carry the ids of the notebooks; there stand the rules, and what each number does not cover.</p>
{% for title, verdicts, settings in lessons %}
<h2>{{ title }}</h2>
<table>
<colgroup><col style="width: 32%"><col style="width: 48%"><col style="width: 20%"></colgroup>
<thead><tr><th scope="col">they say</th><th scope="col">measured</th><th scope="col">verdict</th></tr></thead>
{% for each in verdicts %}
<tr><td>{{ each.statement }} [{{ each.id }}]</td><td>{{ each.measured }}</td><td>{{ each.verdict }}</td></tr>
{% endfor %}
</table>
<table>
<colgroup><col style="width: 26%"><col style="width: 62%"><col style="width: 12%"></colgroup>
<thead><tr><th scope="col">setting</th><th scope="col">start with</th><th scope="col">rests on</th></tr></thead>
{% for setting, start, ids in settings %}
<tr><td>{{ setting }}</td><td>{{ start }}</td><td>{{ ids }}</td></tr>
{% endfor %}
</table>
{% endfor %}
</body>
</html>
"""


def settings(name: str) -> list[tuple[Markup, Markup, str]]:
    """What a lesson says to set tomorrow: the setting and where to start, as HTML, and the claims that it rests on."""
    cells = nbformat.read(notebook(name), as_version=4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return [
        (Markup(tables.html(setting)), Markup(tables.html(start)), " ".join(re.findall(r"\[([A-Z]\w+)\]", why)))
        for setting, start, why in tables.rows(text, "What to set tomorrow")
    ]


def page() -> str:
    """The handout as one HTML page, which needs no other file."""
    lessons = [
        (title(nbformat.read(notebook(name), as_version=4)), *rows)
        for name, rows in {name: (verdicts_on(ids), settings(name)) for name, ids in CHOSEN.items()}.items()
    ]
    return Environment(autoescape=True, trim_blocks=True).from_string(PAGE).render(lessons=lessons) + "\n"


def write_page(target: Path = KIT / "handout.html") -> None:
    """Write the handout."""
    write_whole(target, page())
