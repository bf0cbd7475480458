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
_looks = 0
_bytes = random.Random(0)
_Real = _datetime.datetime
_RealDate = _datetime.date


class _AsReal(type):
    """Instances of the class that was replaced are instances of the one in its place."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__mro__[1])


class _Datetime(_Real, metaclass=_AsReal):
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


class _Date(_RealDate, metaclass=_AsReal):
    @classmethod
    def today(cls) -> Any:
        return cls(_now.year, _now.month, _now.day)


class _Random(random.Random):
    """Seeded from the event where nothing else is given."""

    def seed(self, a: Any = None, version: int = 2) -> None:
        super().seed(_urandom(32) if a is None else a, version)


def _urandom(size: int) -> bytes:
    return _bytes.randbytes(size)


def _microseconds() -> int:
    return (_now - EPOCH) // _datetime.timedelta(microseconds=1)


def _elapsed() -> int:
    """Nanoseconds: no time passes within a call, but two looks at a clock that measures are never at the same moment."""
    global _looks
    _looks += 1
    return _looks * 1000


def _sleep(_seconds: float) -> None:
    raise RuntimeError("a plugin can't sleep: raise wirehook.Retry, and the host calls it again later")


def install() -> None:
    """Replaces what would ask the system."""
    real: dict[str, Any] = {name: getattr(time, name) for name in ("gmtime", "localtime", "ctime", "strftime")}
    seconds = lambda given: _microseconds() // 1_000_000 if given is None else given  # noqa: E731
    replaced: dict[str, Any] = {
        "time": lambda: _microseconds() / 1_000_000,
        "time_ns": lambda: _microseconds() * 1000,
        "gmtime": lambda secs=None: real["gmtime"](seconds(secs)),
        "localtime": lambda secs=None: real["gmtime"](seconds(secs)),
        "ctime": lambda secs=None: real["ctime"](seconds(secs)),
        "strftime": lambda form, moment=None: real["strftime"](form, moment or real["gmtime"](seconds(None))),
        "sleep": _sleep,
    }
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        replaced[name] = lambda: _elapsed() / 1_000_000_000
        replaced[f"{name}_ns"] = _elapsed
    for name, function in replaced.items():
        setattr(time, name, function)
    _datetime.datetime = _Datetime  # type: ignore[misc]
    _datetime.date = _Date  # type: ignore[misc]
    os.urandom = _urandom
    random._urandom = _urandom  # type: ignore[attr-defined]
    random.Random = _Random  # type: ignore[misc]


def begin(event: Event) -> None:
    """Sets the clock and the seeds for one call."""
    global _now, _looks
    _now = event.now.astimezone(_datetime.timezone.utc)
    _looks = 0
    _bytes.seed(f"{event.key}/bytes")
    random.seed(event.key)
