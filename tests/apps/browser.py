"""The page of `demo` in a browser: Debian's Chromium, driven by Playwright.

`python -m tests.apps.browser FOLDER APP=RUN...` takes pictures for the READMEs: each model with an
example, or in a dialog, as `FOLDER/<app>-<name of the run>.png`.
"""

import contextlib
import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from unroll.apps.core import cli, page
from unroll.apps.core.runs import Run

CHROMIUM = shutil.which("chromium")
TIMEOUT = 120_000  # milliseconds: a first request traces TensorFlow functions
_ASK = re.compile("^(Run|Send)$")
# What is said to a model of dialogs.
LINES = ("Hello ! How are you ?", "What do you do in your free time ?", "I like music , too .")


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A headless browser with options of its command line."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *arguments]
        )


@dataclass
class Visit:
    """A visitor's window with the page.

    Attributes:
        window: of the browser.
        hosts: those that anything was requested from.
        problems: what the browser reported.
    """

    window: Page
    hosts: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def open(self, address: str, tab: str = "") -> Locator:
        """Opens the page, or a tab of it, and returns the visible part."""
        self.window.set_default_timeout(TIMEOUT)
        self.window.on("request", self._note_host)
        self.window.on("pageerror", lambda error: self.problems.append(str(error)))
        self.window.goto(address)
        if not tab:
            return self.window.locator("body")
        self.window.get_by_role("tab", name=tab, exact=True).click()
        return self.window.get_by_role("tabpanel").filter(visible=True)

    def _note_host(self, request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob"):
            self.hosts.add(address.hostname)


def visit(browser: Browser, width: int = 1600, height: int = 700) -> Visit:
    """A visit with a session of its own, in a window that has room for the tabs of all apps."""
    return Visit(browser.new_context(viewport={"width": width, "height": height}).new_page())


def use_example(panel: Locator, number: int = 0) -> None:
    """Chooses an example, runs it and waits for its result."""
    panel.locator(".gallery-item, tr.tr-body").nth(number).click()
    has_json = panel.get_by_role("button", name="JSON").count() > 0
    if has_json:
        panel.get_by_role("button", name="JSON").click()
    panel.get_by_role("button", name=_ASK).click()
    if has_json:
        expect(panel.locator(".json-holder")).to_contain_text("{", timeout=TIMEOUT)
    else:
        expect(panel.get_by_role("textbox").last).to_have_value(re.compile("."), timeout=TIMEOUT)
    expect(panel.locator(".progress-text, .generating")).to_have_count(0, timeout=TIMEOUT)
    if has_json:
        panel.get_by_role("button", name="JSON").click()


def say(panel: Locator, line: str) -> None:
    """Says a line in a dialog, and waits for the reply."""
    replies = panel.get_by_test_id("bot")
    count = replies.count()
    box = panel.get_by_role("textbox").last
    box.fill(line)
    box.press("Enter")
    expect(replies).to_have_count(count + 1, timeout=TIMEOUT)


def main(folder: str, *runs: str) -> None:
    """Takes the pictures."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    lines = cli.describe()
    for each in runs:
        name, _, path = each.partition("=")
        picture = Path(folder) / f"{name}-{Path(path).name}.png"
        app = importlib.import_module(f"unroll.apps.{name}.app")
        entry = page.entry(app, Run.open(app, path), lines[name])
        with page.serve([entry]) as address, chromium() as browser:
            visitor = visit(browser, width=1000, height=400)
            panel = visitor.open(address)
            panel.get_by_role("button", name=_ASK).wait_for()
            if panel.locator(".gallery-item, tr.tr-body").count():
                use_example(panel)
            else:
                for line in LINES:
                    say(panel, line)
            visitor.window.screenshot(path=picture, full_page=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
