"""Makes the next item on a thread of its own while the caller works on the one before."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yields some items, none of which is None, one of them being made in advance.

    What goes wrong while an item is made is raised where it is asked for.
    """
    coming = iter(items)
    with ThreadPoolExecutor(max_workers=1) as pool:
        made = pool.submit(next, coming, None)
        while (item := made.result()) is not None:
            made = pool.submit(next, coming, None)
            yield item
