"""Text of a model stays text, whatever it says."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.browser.conftest import Open, Seen
from tests.page_world import HOSTILE, hostile, make_run

from treeward.export.run_folder import RunFolder
from treeward.export.view import write_run_page, write_tree_page
from treeward.search.problem import Problem

PROBE = "127.0.0.1:9"
"""The address that hostile texts ask for; a listener takes its place."""


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address, and what was asked for there."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, listener: tuple[str, list[str]]) -> RunFolder:
    """One tree whose problem, steps, answers and rollouts are all hostile."""

    def script(prompt: str, text: str) -> list[tuple[str, float]]:
        choices = hostile(prompt, text.replace(listener[0], PROBE))
        return [(step.replace(PROBE, listener[0]), share) for step, share in choices]

    prompt = "".join(HOSTILE).replace(PROBE, listener[0])
    problem = Problem(id=HOSTILE[0], prompt=prompt, answer="7", verifier="text")
    path = tmp_path_factory.mktemp("runs") / "<img src=x onerror=pwned=9>"
    return make_run(path, script, [problem], simulations=30, rollouts=4)


def walk(seen: Seen) -> None:
    """Looks at every node, searches, filters, replays and prints."""
    seen.page.locator(".tree .rows").first.focus()
    seen.page.keyboard.press("e")
    for _ in range(60):
        seen.page.keyboard.press("ArrowDown")
    for name in seen.page.locator("#filter option").evaluate_all("all => all.map(o => o.value)"):
        seen.page.select_option("#filter", name)
    seen.page.select_option("#filter", "")
    for text in ("<script>", "\u202e", "U+202E", "]]>"):
        seen.page.fill("#search", text)
        seen.page.keyboard.press("Enter")
    seen.page.fill("#search", "")
    seen.page.locator(".play").first.click()
    seen.run("dispatchEvent(new Event('beforeprint'))")
    seen.page.wait_for_timeout(300)


def assert_harmless(seen: Seen, path: Path, asked: list[str]) -> None:
    assert seen.run("window.pwned") is None
    assert [url.partition("#")[0] for url in seen.requests] == [path.as_uri()]
    assert asked == []
    assert seen.complaints == []
    # The page's own elements and nothing else: no text became markup.
    assert seen.page.locator("img, iframe, link, object, embed, a[href^=javascript]").count() == 0
    assert seen.page.locator("script:not([type])").count() == 1
    # Text nodes hold none of the characters that hide or turn text.
    hidden = (
        "[...document.querySelectorAll('#app *')].flatMap(e => [...e.childNodes])"
        ".filter(n => n.nodeType === 3 && /[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u061c"
        "\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff]/.test(n.data)).length"
    )
    assert seen.run(hidden) == 0


def test_a_tree_of_hostile_text_runs_and_asks_nothing(
    show: Open, run: RunFolder, tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    path = tmp_path / "tree.html"
    write_tree_page(run, [f"tree-{HOSTILE[0]}"], path)
    seen = show(path)
    walk(seen)
    assert_harmless(seen, path, listener[1])
    assert seen.page.get_by_text("U+202E").count() > 0


def test_the_page_of_its_run_does_not_either(
    show: Open, run: RunFolder, tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    path = tmp_path / "run.html"
    write_run_page(run, path)
    seen = show(path)
    assert_harmless(seen, path, listener[1])
    seen.page.locator(".trees .rows .row button").first.click()
    walk(seen)
    assert_harmless(seen, path, listener[1])


def test_an_address_cannot_do_what_text_cannot(
    show: Open, run: RunFolder, tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    path = tmp_path / "run.html"
    write_run_page(run, path)
    for place in ("tree=<img src=x onerror=pwned=1>&node=1e999", "node=__proto__", "%%%&=&tree"):
        seen = show(path, place)
        assert_harmless(seen, path, listener[1])


def test_the_policy_holds_even_where_the_script_would_fail(
    show: Open, run: RunFolder, tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    """Markup from text is refused, and so are styles, scripts, evaluation and requests."""
    path = tmp_path / "tree.html"
    write_tree_page(run, [f"tree-{HOSTILE[0]}"], path)
    seen = show(path)
    for attempt in (
        "document.body.innerHTML = '<img src=x onerror=pwned=1>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "document.createElement('script').text = 'pwned = 1'",
        "setTimeout('pwned = 1')",
    ):
        refused = "(() => { try { " + attempt + "; return false } catch (e) { return true } })()"
        assert seen.run(refused), attempt
    image = f"(() => {{ const i = new Image(); i.src = 'http://{listener[0]}/i'; }})()"
    seen.run(image)
    assert seen.run(f"fetch('http://{listener[0]}/f').then(() => false, () => true)")
    seen.page.wait_for_timeout(300)
    assert listener[1] == []
    assert seen.run("window.pwned") is None


def test_the_same_text_as_markup_is_dangerous(
    show: Open, tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    """The texts would do harm, and the harm would be seen."""
    address, asked = listener
    path = tmp_path / "careless.html"
    body = "".join(HOSTILE[:2] + HOSTILE[4:5]).replace(PROBE, address)
    path.write_text(f"<!doctype html><meta charset=utf-8><p>{body}")
    seen = show(path)
    seen.page.wait_for_timeout(300)
    assert seen.run("window.pwned") is not None
    assert asked
    asked.clear()
