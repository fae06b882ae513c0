"""A real Chromium for the tests of pages: `make test-browser` runs them."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass(kw_only=True)
class Seen:
    """A page in the browser, and what happened there."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Errors of scripts, and all that a console says, refusals by the security policy included."""

    def texts(self, selector: str) -> list[str]:
        """The texts of what a selector finds, once the page has drawn itself."""
        self.run(DRAWN)
        return list(self.page.locator(selector).all_inner_texts())

    def rows(self) -> list[str]:
        """The texts of the steps that are in the document."""
        return self.texts("[role=treeitem] .text")

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)


Open = Callable[..., Seen]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert program, "no chromium on the path; `make test-browser` says how to get one"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(SWITCHES))
        yield opened
        opened.close()


@pytest.fixture
def show(browser: Browser) -> Iterator[Open]:
    """Opens a file: `show(path, place="node=3", width=1280, height=3000)`."""
    contexts = []

    def opened(path: Path, place: str = "", width: int = 1280, height: int = 3000) -> Seen:
        context = browser.new_context(
            viewport={"width": width, "height": height}, permissions=[], color_scheme="light"
        )
        contexts.append(context)
        seen = Seen(page=context.new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("console", lambda message: seen.complaints.append(message.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.goto(f"{path.as_uri()}#{place}")
        return seen

    yield opened
    for context in contexts:
        context.close()
