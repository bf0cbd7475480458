"""What a plugin reaches of its host. Natively it is ``wirehook.testing`` that answers."""

from __future__ import annotations

from typing import Protocol


class Host(Protocol):
    """The contract's imports."""

    def log(self, level: str, message: str) -> None: ...

    def get(self, name: str) -> str | None: ...

    def all(self) -> list[tuple[str, str]]: ...


#: The most lines kept natively; the host's own budget is 100 a call.
LOG_LINES_MAX = 10_000


class Native:
    """The host of a test."""

    def __init__(self) -> None:
        self.config: dict[str, str] = {}
        self.lines: list[tuple[str, str]] = []

    def log(self, level: str, message: str) -> None:
        if len(self.lines) < LOG_LINES_MAX:
            self.lines.append((level, message))

    def get(self, name: str) -> str | None:
        return self.config.get(name)

    def all(self) -> list[tuple[str, str]]:
        return sorted(self.config.items())


native = Native()
current: Host = native
