"""Lines in the host's log. A call has 100 lines and 16 KiB; past that, lines are dropped and counted."""

from __future__ import annotations

import io
import logging

from . import _host


def trace(message: object) -> None:
    """Every step."""
    _host.current.log("trace", str(message))


def debug(message: object) -> None:
    """Of use to the plugin's author."""
    _host.current.log("debug", str(message))


def info(message: object) -> None:
    """Of use to the operator."""
    _host.current.log("info", str(message))


def warn(message: object) -> None:
    """Something to look at, though the event was handled."""
    _host.current.log("warn", str(message))


def error(message: object) -> None:
    """Something went wrong."""
    _host.current.log("error", str(message))


class LogHandler(logging.Handler):
    """Sends the records of Python's ``logging`` to the host; ``logging.getLogger().addHandler(LogHandler())``."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _host.current.log(level_of(record.levelno), self.format(record))
        except Exception:
            self.handleError(record)


def level_of(number: int) -> str:
    """The contract's level of one of ``logging``'s."""
    steps = [(logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"), (logging.DEBUG, "debug")]
    return next((level for least, level in steps if number >= least), "trace")


class Printed(io.TextIOBase):
    """What a plugin prints, as lines of the log."""

    def __init__(self, level: str) -> None:
        self._level = level
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            _host.current.log(self._level, line)
        return len(text)
