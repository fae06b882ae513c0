"""Ends a training in good order when it is told to end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """Reports that Ctrl-C or SIGTERM ended a training, which a resume goes on with."""

    def __init__(self, number: signal.Signals, message: str) -> None:
        """Takes the signal and one line for a person."""
        super().__init__(message)
        self.exit_code = 128 + number


@contextmanager
def first_signal() -> Iterator[list[signal.Signals]]:
    """Notes the first SIGINT or SIGTERM; the second ends the process as usual.

    What is ignored stays so, and on other threads than the main one nothing is noted: whoever runs
    the main one has the signals.
    """
    caught: list[signal.Signals] = []
    both = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.getsignal(each) for each in both}
    main = threading.current_thread() is threading.main_thread()
    mine = [each for each in both if main and before[each] is not signal.SIG_IGN]

    def note(number: int, _: FrameType | None) -> None:
        caught.append(signal.Signals(number))
        for each in mine:
            signal.signal(each, signal.SIG_DFL)

    for each in mine:
        signal.signal(each, note)
    try:
        yield caught
    finally:
        for each in mine:
            signal.signal(each, before[each] or signal.SIG_DFL)
