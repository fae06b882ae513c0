"""What a terminal or a card may be shown: text that is only text, plain tables, progress."""

import time
import unicodedata
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from treeward.search.forest import Progress as Counts

_PLAIN_SECONDS = 5.0
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that move a cursor, turn text round or show nothing."""


def clean(text: str) -> str:
    """Returns text from a model or a file as one line that cannot act on a terminal."""
    return "".join(
        " " if char in "\n\t" else "\N{REPLACEMENT CHARACTER}" if _hidden(char) else char
        for char in text
    )


def as_code(text: str) -> str:
    """Returns text from a model or a file as Markdown code that it can neither end nor leave."""
    return "`" + clean(text).replace("`", "'") + "`"


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, width: int = 48) -> str:
    """Returns rows as aligned text; long cells are cut, null is shown as such."""
    cells = [[_cell(value, width) for value in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * size for size in widths), *lines[1:]])


def _cell(value: object, width: int) -> str:
    text = "null" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    text = clean(text)
    return text if len(text) <= width else text[: width - 3] + "..."


class RunProgress:
    """Shows progress on stderr: a bar on a terminal, else lines that come ever more rarely."""

    def __init__(self, console: Console, what: str = "trees") -> None:
        """Takes a console that writes to stderr, and what is counted there."""
        self._console = console
        self._what = what
        self._started = self._last = time.monotonic()
        self._bar: Progress | None = None

    def __call__(self, counts: Counts, total: int) -> None:
        """Shows the counts; called about twice a second."""
        if self._console.is_terminal:
            self._show_bar(counts, total)
        elif time.monotonic() - self._last > max(_PLAIN_SECONDS, 0.1 * self._seconds()):
            self._last = time.monotonic()
            # Trees that grow side by side end together: an early rate says nothing.
            known = counts.trees >= 0.1 * total
            seconds = self._seconds() * (total - counts.trees) / counts.trees if known else 0
            left = f", about {seconds:.0f} s left" if known else ""
            self._console.print(
                f"{counts.trees}/{total} {self._what}, {self._facts(counts)}{left}", highlight=False
            )

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()

    def _show_bar(self, counts: Counts, total: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn(self._what),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.add_task("", total=total, facts="")
            self._bar.start()
        self._bar.update(
            self._bar.task_ids[0], total=total, completed=counts.trees, facts=self._facts(counts)
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _facts(self, counts: Counts) -> str:
        seconds = self._seconds()
        facts = [
            f"{counts.tokens / seconds:,.0f} tokens/s" if seconds else "",
            f"{counts.in_flight} in flight",
            f"{counts.failures} errors",
        ]
        if counts.replayed:
            facts.append(f"{counts.replayed} replies from the journal")
        return ", ".join(filter(None, facts))
