"""The errors that Treeward raises, and the exit code each one ends a command with.

    TreewardError            1  anything that ends a command
    +-- BadInput             2  what a user gave breaks a rule (also a ValueError)
    |   +-- UnreadablePrompt 2  a policy cannot be asked one problem
    +-- SettingsConflict     3  the run folder holds other settings
    +-- DamagedData          5  a file does not hold what was written to it
    +-- MissingExtra         1  an optional dependency is not installed
    +-- CallFailed           -  one model call failed; the forest turns it into data on its node
        +-- SomeFailed       -  in `policy.py`: it failed in part, and brings the rest

A message is one line: what is wrong, where, the rule, and the way out.
"""


class TreewardError(Exception):
    """Ends a command with one clear line."""

    exit_code = 1


class BadInput(TreewardError, ValueError):
    """Says that something a user gave breaks a rule, and what would satisfy it."""

    exit_code = 2


class UnreadablePrompt(BadInput):
    """Says why a policy cannot be asked one problem; others it may."""


class SettingsConflict(TreewardError):
    """Says which settings of a run folder differ from those asked for."""

    exit_code = 3


class DamagedData(TreewardError):
    """Names the file that does not hold what was written to it."""

    exit_code = 5


class MissingExtra(TreewardError):
    """Names the extra to install for what was asked."""

    def __init__(self, what: str, extra: str) -> None:
        """Makes the message from the feature asked for and the extra that brings it."""
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'treeward[{extra}]'")


class CallFailed(TreewardError):
    """Reports one model call that gave no reply; its cause becomes data, never a number."""

    def __init__(self, kind: str, message: str) -> None:
        """Keeps the kind apart from the message, so that runs can be counted by kind."""
        super().__init__(message)
        self.kind = kind
        self.message = message
