"""`make lab-test`: do the lessons finish in JupyterLab, and how do they look there? Pictures go to build/screenshots/.

Copies without outputs are opened as `make lab` opens the notebooks; `Run All Cells` is clicked, and each has to end
without an error, with every cell run, and with no cell that shows more than two progress bars or warnings. Notebooks
named on the command line take the place of the lessons.
"""

import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Page
from playwright.sync_api import TimeoutError as Late

from course_utils.core.files import ROOT, lessons, write_whole
from tests.browser.window import chromium

PLACE, PICTURES = ROOT / "build" / "lab", ROOT / "build" / "screenshots" / "lab"
MINUTES = 30  # for one notebook, and for the server to start
CALM = 2  # bars or warnings in the stderr of one cell
KERNELS = "--ServerApp.kernel_spec_manager_class=course_utils.course.execute.ThisPython"  # as in `make lab`
SETTINGS = {  # every cell is in the page, not only those in view; no question about news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(node => node.textContent.trim())"
ENDED = f"() => {{ const all = {PROMPTS}; return all.some(t => /\\d/.test(t)) && !all.includes('[*]:'); }}"
OUTPUTS = """kind => [...document.querySelectorAll('.jp-CodeCell')].flatMap((cell, place) =>
    [...cell.querySelectorAll(`.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.${kind}"]`)]
        .map(output => [place + 1, output.innerText.trim()]))"""
SCROLLED = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a JupyterLab of this Python on a folder, with room for the name of a notebook.

    Raises:
        SystemExit: it does not answer.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, token = f"http://127.0.0.1:{port}", secrets.token_hex()
    options = [f"--port={port}", f"--IdentityProvider.token={token}", "--no-browser", "--allow-root", KERNELS]
    options += [f"--notebook-dir={folder}", f"--LabApp.user_settings_dir={PLACE / 'settings'}"]
    options += [f"--LabApp.workspaces_dir={PLACE / 'workspaces'}"]
    with (PLACE / "server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], stdout=log, stderr=log)
        try:
            wait_for(f"{address}/api/status?token={token}")
            yield f"{address}/lab/tree/{{}}?reset&token={token}"  # without what was open before
        finally:
            server.terminate()
            server.wait()


def wait_for(address: str, seconds: float = 60 * MINUTES) -> None:
    """Return when the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    sys.exit(f"JupyterLab does not answer; what it said is in {PLACE / 'server.log'}.")


def emptied(paths: list[Path]) -> list[str]:
    """Copies of the notebooks, without outputs, in build/lab/notebooks/; their names."""
    names = []
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        names.append(f"{path.parent.name}-{path.name}" if path.parent.name != "notebooks" else path.name)
        write_whole(PLACE / "notebooks" / names[-1], nbformat.writes(notebook) + "\n")
    return names


def run_all(page: Page, address: str) -> list[str]:
    """Open a notebook, click `Run All Cells`, wait for its end; what is wrong with how it went."""
    page.set_default_timeout(MINUTES * 60_000)
    try:
        page.goto(address)
        page.locator(".jp-CodeCell").first.wait_for()
        page.get_by_text("| Idle").first.wait_for()  # what is asked of a kernel that only starts is forgotten
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_function(ENDED, polling=1000)
    except Late as error:
        return [f"it does not go on: {error.message.splitlines()[0]}"]
    page.wait_for_timeout(1000)  # the last outputs are drawn
    errors = [f"cell {place}: {text.splitlines()[-1]}" for place, text in page.evaluate(OUTPUTS, "error")]
    loud = [
        f"cell {place} wrote {noise} bars or warnings: {text[:200]}"
        for place, text in page.evaluate(OUTPUTS, "stderr")
        if (noise := sum("%|" in line or "Warning" in line for line in text.splitlines())) > CALM
    ]
    idle = [f"code cell {place + 1} did not run" for place, t in enumerate(page.evaluate(PROMPTS)) if t == "[ ]:"]
    return errors + loud + idle[:1]


def photograph(page: Page, name: str) -> None:
    """Pictures of the whole notebook, one window after the other."""
    height = page.evaluate(f"document.querySelector('{SCROLLED}').clientHeight - 100")
    total = page.evaluate(f"document.querySelector('{SCROLLED}').scrollHeight")
    for number, top in enumerate(range(0, total, height)):
        page.evaluate(f"document.querySelector('{SCROLLED}').scrollTop = {top}")
        page.wait_for_timeout(200)
        page.screenshot(path=PICTURES / f"{Path(name).stem}-{number:02}.png")


def lab(browser: Browser, name: str) -> list[str]:
    """What is wrong with a notebook; its server, and so its kernel, end with it."""
    with served(PLACE / "notebooks") as address:
        page, start = browser.new_page(viewport={"width": 1280, "height": 1000}), time.monotonic()
        wrong = run_all(page, address.format(name))
        print(
            "\n  ".join([f"{name:24} {time.monotonic() - start:.0f} s", *(wrong or ["nothing is wrong"])]), flush=True
        )
        photograph(page, name)
        page.close()
    return wrong


def main() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)  # JupyterLab would open again what an earlier run had open
    names = emptied([Path(each).resolve() for each in sys.argv[1:]] or lessons())
    for setting, value in SETTINGS.items():
        write_whole(PLACE / "settings" / "@jupyterlab" / f"{setting}.jupyterlab-settings", json.dumps(value))
    PICTURES.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        found = [each for name in names for each in lab(browser, name)]
    print(f"pictures: {PICTURES}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
