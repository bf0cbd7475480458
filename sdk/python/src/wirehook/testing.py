"""For a plugin's native tests: events to call its function with, its config, and the lines it logged."""

from __future__ import annotations

import re
from typing import Any

from . import _host, _json
from ._call import Handler, run
from .event import Event
from .webhook import Webhook

#: The members of FraiseQL's formats: type, operation, id, entity, previous, timestamp.
_FORMATS = {
    "page": ("entity_type", "operation", "entity_id", "entity", "previous", "timestamp"),
    "entity_event": ("entity_type", "event_type", "entity_id", "data", "before", "timestamp"),
    "change_event": ("object_type", "op", "object_id", "after", "before", "commit_time"),
    "outbox": ("object_type", "modification_type", "object_id", "object_data", "object_data_before", "commit_time"),
}
_OPERATIONS = {"insert": "created", "create": "created", "update": "updated", "delete": "deleted"}


def event(subject: str, *, entity: Any = None, **fields: Any) -> Event:
    """An event of this subject; the other fields are ``Event``'s. ``entity`` is written as JSON."""
    parts = subject.split(".")
    if len(parts) == 3 and parts[0] == "fraiseql":
        fields = {"entity_type": parts[1], "operation": parts[2], **fields}
    if entity is not None:
        fields["entity_json"] = _json.dumps(entity)
    return Event(**{"key": "test/once/1", "subject": subject, **fields})


def from_message(message: bytes | str) -> Event:
    """The event that the host makes of a message in one of FraiseQL's formats; of other JSON, the subject is ``test``.

    It is meant for fixtures: where a message is odd, the host is stricter. Raises ``ValueError`` where it is no JSON.
    """
    members = _json.loads(message)
    for name, (kind, operation, id_, entity, previous, timestamp) in _FORMATS.items():
        if isinstance(members, dict) and isinstance(members.get(kind), str) and isinstance(members.get(operation), str):
            text = members[operation].lower()
            done = text if text in _OPERATIONS.values() else _OPERATIONS.get(text, "custom")
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", members[kind]).lower()
            written = lambda member: None if members.get(member) is None else _json.dumps(members[member])  # noqa: E731
            return event(
                f"fraiseql.{snake}.{done}",
                entity_id=members.get(id_),
                tenant_id=members.get("tenant_id"),
                timestamp=members.get(timestamp),
                entity_json=written(entity),
                previous_json=written(previous),
                attributes=[("source", "test"), ("format", name)],
            )
    return event("test", entity_json=message.encode() if isinstance(message, str) else message)


def call(function: Handler, message: bytes | str) -> list[Webhook]:
    """Calls a plugin's function with a message as the host would: what it raises is ``Retry`` or ``Reject``."""
    return run(function, from_message(message))


def config(**values: str) -> None:
    """Sets the whole of what ``wirehook.config`` answers; without arguments, nothing."""
    _host.native.config = values


def logs() -> list[tuple[str, str]]:
    """Takes the lines logged since the last call, in order."""
    lines, _host.native.lines = _host.native.lines, []
    return lines
