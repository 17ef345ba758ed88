"""Imports of libraries that ask for more than is used of them here, without what they do not need."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden_modules(*names: str) -> Iterator[None]:
    """Make an import of these modules fail while the block runs, except of those that are imported already.

    For a library that imports a heavy module for a part of itself that nothing here uses, and treats its absence as
    normal. Can go where the library imports it on use. After the block the modules can be imported as ever.
    """
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # None makes an import of the name fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
