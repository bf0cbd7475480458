"""Clock and random numbers of a component: the event's time, and a seed from its key.

A component has no clock and no randomness of its own, and a run must give the same result when it is run again. What is
replaced is replaced before the plugin's module is read, so that ``from datetime import datetime`` finds it too.
"""

from __future__ import annotations

import datetime as _datetime
import os
import random
import time
from typing import Any

from .event import EPOCH, Event

_now: _datetime.datetime = EPOCH
_bytes = random.Random(0)
_Real = _datetime.datetime
_RealDate = _datetime.date


class _Datetime(_Real):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        moment = _now.astimezone(tz or _datetime.timezone.utc)
        moment = moment if tz else moment.replace(tzinfo=None)
        return cls.combine(moment.date(), moment.timetz())

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now()

    @classmethod
    def today(cls) -> Any:
        return cls.now()


class _Date(_RealDate):
    @classmethod
    def today(cls) -> Any:
        return cls(_now.year, _now.month, _now.day)


def install() -> None:
    """Replaces what would ask the system."""
    seconds = lambda: _now.timestamp()  # noqa: E731
    nanoseconds = lambda: int(_now.timestamp() * 1_000_000) * 1000  # noqa: E731
    for name in ("time", "monotonic", "perf_counter", "process_time"):
        setattr(time, name, seconds)
        setattr(time, f"{name}_ns", nanoseconds)
    setattr(_datetime, "datetime", _Datetime)
    setattr(_datetime, "date", _Date)
    setattr(os, "urandom", lambda size: _bytes.randbytes(size))
    setattr(random, "_urandom", os.urandom)


def begin(event: Event) -> None:
    """Sets the clock and the seeds for one call."""
    global _now
    _now = event.now.astimezone(_datetime.timezone.utc)
    _bytes.seed(f"{event.key}/bytes")
    random.seed(event.key)
