"""What is known of the licences of the models that a run used."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from treeward.export.run_folder import RunFolder
from treeward.search import smollm
from treeward.search.errors import BadInput
from treeward.search.models import SHIPPED
from treeward.search.specs import nearest

PROBLEMS = "problems"
"""Stands for the problems where a licence is said of them."""


CRITICS = "critics"
"""Stands for the critics that steered the run."""


class Licences(NamedTuple):
    """Holds licences by what they are of; None where not known."""

    models: Mapping[str, str | None]
    problems: str | None


def licences_of(run: RunFolder, said: Iterable[str]) -> Licences:
    """Returns the licences of a run's models and problems.

    Args:
        run: The run; its models are the policies of its samplers, and its critics.
        said: What the user says, each `NAME=LICENCE`; NAME is a policy's, `critics` or
            `problems`.

    Raises:
        BadInput: One of them is of another form, or names nothing of this run.
    """
    names = [sampler.policy for sampler in run.identity.samplers]
    models = {name: _known(name) for name in dict.fromkeys(names)}
    if run.identity.has_critics:
        models[CRITICS] = None
    problems = None
    for each in said:
        name, equals, licence = (part.strip() for part in each.partition("="))
        if not equals or not licence:
            raise BadInput(f"licence {each!r}: must be NAME=LICENCE")
        if name == PROBLEMS:
            problems = licence
        elif name in models:
            models[name] = licence
        else:
            raise BadInput(
                f"licence: this run has no model {name!r}; {nearest(name, [*models, PROBLEMS])}"
            )
    return Licences(models, problems)


def _known(name: str) -> str | None:
    if name in SHIPPED:
        return "MIT, shipped with Treeward"
    return "Apache-2.0" if name == smollm.NAME else None
