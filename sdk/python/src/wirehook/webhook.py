"""What a plugin returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import _json


@dataclass(frozen=True)
class Webhook:
    """One request for the host to sign, deliver and retry."""

    body: bytes
    #: An endpoint's name in the host's settings; the plugin's first where it is None.
    endpoint: str | None = None
    #: What tells it from the event's others for the same endpoint, 1 to 256 bytes; its position where it is None.
    key: str | None = None
    #: ``application/json`` where it is None.
    content_type: str | None = None
    #: Further headers, in order. Those of the connection, of identity and of the signature are the host's. Values are visible
    #: ASCII, spaces and tabs.
    headers: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def json(
        cls,
        value: Any,
        *,
        endpoint: str | None = None,
        key: str | None = None,
        content_type: str | None = None,
        headers: list[tuple[str, str]] | None = None,
    ) -> Webhook:
        """A webhook whose body is ``value`` as compact JSON; numbers of the event keep their digits."""
        return cls(_json.dumps(value), endpoint, key, content_type, list(headers or []))

    def body_json(self) -> Any:
        """The body as JSON, for tests."""
        return _json.loads(self.body)
