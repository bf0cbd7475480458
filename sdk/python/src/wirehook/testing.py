"""For a plugin's native tests: events to call its function with, its config, and the lines it logged."""

from __future__ import annotations

from typing import Any

from . import _host, _json
from .event import Event


def event(subject: str, *, entity: Any = None, **fields: Any) -> Event:
    """An event of this subject; the other fields are ``Event``'s. ``entity`` is written as JSON."""
    parts = subject.split(".")
    if len(parts) == 3 and parts[0] == "fraiseql":
        fields = {"entity_type": parts[1], "operation": parts[2], **fields}
    if entity is not None:
        fields["entity_json"] = _json.dumps(entity)
    return Event(**{"key": "test/once/1", "subject": subject, **fields})


def config(**values: str) -> None:
    """Sets the whole of what ``wirehook.config`` answers; without arguments, nothing."""
    _host.native.config = values


def logs() -> list[tuple[str, str]]:
    """Takes the lines logged since the last call, in order."""
    lines, _host.native.lines = _host.native.lines, []
    return lines
