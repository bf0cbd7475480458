"""Why an event produced no result."""

from __future__ import annotations


class Failure(Exception):
    """What ``Retry`` and ``Reject`` have in common. The host keeps the first 2 KiB of the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Failure):
    """It may work later: the event is run again, by the sidecar's ``[retry]``."""


class Reject(Failure):
    """It will never work: the event is a dead letter at once. An unwanted event is none: return an empty list."""
