"""What a plugin is given."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from . import _json
from .failure import Reject

#: What ``now`` says of an event without a timestamp.
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass
class Event:
    """One message from a bus, normalised. Its JSON is parsed when it is asked for."""

    #: What makes two messages the same event. Opaque.
    key: str
    #: ``fraiseql.{entity_type}.{operation}`` for FraiseQL's formats, else the bus's own subject.
    subject: str
    #: In snake_case; empty where the format was not recognised.
    entity_type: str = ""
    #: ``created``, ``updated``, ``deleted`` or ``custom``. Pass by other words.
    operation: str = "custom"
    entity_id: str | None = None
    tenant_id: str | None = None
    #: When the change was made, as the publisher wrote it: RFC 3339 in FraiseQL's formats.
    timestamp: str | None = None
    entity_json: bytes | None = None
    previous_json: bytes | None = None
    attributes: list[tuple[str, str]] = field(default_factory=list)
    #: Which try of this run this is, from 1.
    attempt: int = 1

    @cached_property
    def entity(self) -> Any:
        """The entity after the change: numbers with a fraction or an exponent as ``Decimal``, which keeps their digits.
        Rejects the event where it has none, one that is no JSON, or one nested deeper than 127 levels."""
        if self.entity_json is None:
            raise Reject("the event has no entity")
        return _parse("entity", self.entity_json)

    @cached_property
    def previous(self) -> Any:
        """The entity before the change; None where the publisher did not send it."""
        return None if self.previous_json is None else _parse("previous", self.previous_json)

    @cached_property
    def now(self) -> datetime:
        """The event's timestamp, the same at every run; 1970 where it has none that can be read."""
        try:
            moment = datetime.fromisoformat(self.timestamp or "")
        except ValueError:
            return EPOCH
        return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)

    @cached_property
    def random(self) -> random.Random:
        """Random numbers seeded from the event's key, the same at every run. Never for secrets."""
        return random.Random(self.key)

    def attribute(self, name: str) -> str | None:
        """An attribute, such as ``source``, ``format``, ``raw_subject``, ``seq`` or ``actor``."""
        return next((value for known, value in self.attributes if known == name), None)

    def header(self, name: str) -> str | None:
        """A header of the bus, whatever its capitals."""
        return self.attribute(f"header.{name.lower()}")


#: Levels of arrays and objects within each other that an entity may have, in every SDK (wit/README.md). A few thousand
#: would end the interpreter.
DEPTH_MAX = 127

_STRUCTURE = re.compile(rb'"(?:[^"\\\\]|\\\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def _is_too_deep(text: bytes) -> bool:
    if text.count(b"[") + text.count(b"{") <= DEPTH_MAX:
        return False
    depth = 0
    for found in _STRUCTURE.finditer(text):
        first = text[found.start()]
        if first in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def _parse(what: str, text: bytes) -> Any:
    if _is_too_deep(text):
        raise Reject(f"the event's `{what}` is nested deeper than {DEPTH_MAX} levels")
    try:
        return _json.loads(text)
    except ValueError as error:
        raise Reject(f"the {what} is not JSON: {error}") from error
