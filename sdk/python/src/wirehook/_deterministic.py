"""Clock and random numbers of a component: the event's time, and a seed from its key.

A component has no clock and no randomness of its own, and a run must give the same result when it is run again. What is
replaced is replaced before the plugin's module is read, so that ``from datetime import datetime`` finds it too. Nothing is
made of the event before it is asked for: most calls ask for neither.
"""

from __future__ import annotations

import datetime as _datetime
import os
import random
import time
from typing import Any

from .event import EPOCH, Event

_event = Event(key="", subject="")
_moment: _datetime.datetime | None = EPOCH
_calls = 0
_looks = 0
_Real = _datetime.datetime
_RealDate = _datetime.date


def _now() -> _datetime.datetime:
    global _moment
    if _moment is None:
        _moment = _event.now.astimezone(_datetime.timezone.utc)
    return _moment


class _AsReal(type):
    """Instances of the class that was replaced are instances of the one in its place."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__mro__[1])


class _Datetime(_Real, metaclass=_AsReal):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        moment = _now().astimezone(tz or _datetime.timezone.utc)
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
        now = _now()
        return cls(now.year, now.month, now.day)


class _Random(random.Random):
    """Seeded from the event where nothing else is given."""

    def seed(self, a: Any = None, version: int = 2) -> None:
        super().seed(_urandom(32) if a is None else a, version)


class _PerEvent(random.Random):
    """Seeded from the event's key by its first use in a call, unless the plugin seeds it."""

    _seeded_in = 0

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        super().__init__(0)

    def seed(self, a: Any = None, version: int = 2) -> None:
        self._seeded_in = _calls
        super().seed(_urandom(32) if a is None else a, version)

    def random(self) -> float:
        self._begin()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        self._begin()
        return super().getrandbits(k)

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        # It keeps every other result for the next call of it, which must not be another event's.
        self._begin()
        return super().gauss(mu, sigma)

    def getstate(self) -> tuple[Any, ...]:
        self._begin()
        return super().getstate()

    def _begin(self) -> None:
        if self._seeded_in != _calls:
            self.seed(_event.key + self._suffix)


_bytes = _PerEvent("/bytes")


def _urandom(size: int) -> bytes:
    return _bytes.randbytes(size)


def _replace_generator() -> None:
    """The functions of ``random`` are methods of one hidden generator."""
    hidden, ours = random._inst, _PerEvent("")  # type: ignore[attr-defined]
    for name, value in list(vars(random).items()):
        if getattr(value, "__self__", None) is hidden:
            setattr(random, name, getattr(ours, name))
    random._inst = ours  # type: ignore[attr-defined]


def _microseconds() -> int:
    return (_now() - EPOCH) // _datetime.timedelta(microseconds=1)


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
    _replace_generator()


def begin(event: Event) -> None:
    """The clock and the seeds are the event's from here on."""
    global _event, _moment, _calls, _looks
    _event, _moment, _looks = event, None, 0
    _calls += 1
