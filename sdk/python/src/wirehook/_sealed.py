"""What needs a file when an event comes, and there is none: said in words, where the interpreter would end in a trap.

A component has the modules that were imported at its build. A further import, or the data of a time zone, would be looked
for in a file system that is not there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class _NoFiles:
    """The last finder: what is neither built in nor frozen nor imported already can't be had."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        raise ModuleNotFoundError(
            f"{name} was not imported when the plugin was built, and there are no files when an event comes:"
            f" import it at the top of the plugin",
            name=name,
        )


def _no_zone(key: str) -> Any:
    from zoneinfo import ZoneInfoNotFoundError

    raise ZoneInfoNotFoundError(
        f"no data for the time zone {key!r}: there are no files when an event comes. Make the ZoneInfo at the top of"
        f" the plugin, where it is read at the build (from the package tzdata in `pythonpath`), and use that one"
    )


def seal() -> None:
    """Called once, at the end of a build, when everything was imported."""
    from importlib import machinery

    needing_files = machinery.PathFinder
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not needing_files] + [_NoFiles]
    zones = sys.modules.get("zoneinfo")
    if zones is not None:
        zones.reset_tzpath(to=())
        sys.modules["zoneinfo._common"].load_tzdata = _no_zone  # type: ignore[attr-defined]
