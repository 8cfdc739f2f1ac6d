"""`make site-test`: does the site look and work as it should, opened from the disk? Pictures go to build/screenshots/.

Every page is opened as wide as a desk's screen and as a phone: without an error in the console, without a request to
the network, all pictures with alt text, nothing to scroll sideways. A search finds what is searched for.
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page

from course_utils.core.files import ROOT
from tests.browser.window import chromium, listen

SITE, PICTURES = ROOT / "build" / "course", ROOT / "build" / "screenshots" / "site"
SCREENS = {"desk": (1280, 900), "phone": (390, 844)}
SEARCHED, FOUND = "NF4", "QLoRA"  # a word, and what has to be among the titles of what is found
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
MUTE = "[...document.images].filter(image => !image.alt.trim()).map(image => image.src)"


def pages() -> list[Path]:
    return [path for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts]


def name(path: Path) -> str:
    return path.relative_to(SITE).with_suffix("").as_posix().replace("/", "-")


def look(page: Page, path: Path, picture: Path) -> list[str]:
    """What is wrong with a page on its own, apart from what it says; its top is drawn into `picture`."""
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_timeout(300)  # scripts that wait for the page have had their turn
    page.screenshot(path=picture)
    wider = page.evaluate(WIDER)
    too_wide = [f"it is {wider} px wider than its window"] if wider else []
    return too_wide + [f"picture without alt text: {source}" for source in page.evaluate(MUTE)]


def search(page: Page) -> list[str]:
    """What is wrong with a search from the landing page, by the keyboard."""
    page.goto((SITE / "index.html").as_uri(), wait_until="load")
    page.keyboard.press("Control+k")
    page.keyboard.type(SEARCHED)
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    page.wait_for_timeout(1000)
    page.screenshot(path=PICTURES / "search.png")
    titles = page.locator("#search-results li a").all_inner_texts()
    return [] if any(FOUND in title for title in titles) else [f"{SEARCHED} is found in {', '.join(titles)} alone"]


def visit(browser: Browser, screen: str) -> list[str]:
    """What is wrong with any page on one screen; on the wider one, with a search as well."""
    width, height = SCREENS[screen]
    page, found = browser.new_page(viewport={"width": width, "height": height}), []
    said = listen(page)
    (PICTURES / screen).mkdir(parents=True, exist_ok=True)
    for path in pages():
        wrong = look(page, path, PICTURES / screen / f"{name(path)}.png")
        found += [f"{screen}, {name(path)}: {each}" for each in [*wrong, *said]]
        said.clear()
    if screen == "desk":
        found += [f"search: {each}" for each in [*search(page), *said]]
    page.close()
    return found


def main() -> None:
    if not (SITE / "index.html").is_file():
        sys.exit(f"There is no site in {SITE}; build it with `make site`.")
    with chromium() as browser:
        found = [each for screen in SCREENS for each in visit(browser, screen)]
    print("\n".join(found) or f"{len(pages())} pages on {len(SCREENS)} screens: nothing is wrong")
    print(f"pictures: {PICTURES}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
