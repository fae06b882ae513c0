"""Has Python look for garbage less often while trees grow.

Objects that nothing refers to are freed at once; Python's collector looks for those that refer to
each other. Each time the objects at hand have grown by a quarter it looks at all of them, and trees
and their replies are many objects that live long and never refer back: a quarter of the time of a
search with 100,000 nodes goes into that.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

RARELY = (100_000, 20, 100)
"""New objects before the youngest are looked at, and how often before the older, and before all:
here every 200 million objects, where Python's own thresholds come to 70,000."""


@contextmanager
def collected_rarely() -> Iterator[None]:
    """Raises the collector's thresholds for the process, and puts them back in the end."""
    before = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
