"""JSON whose numbers keep their digits.

A number with a fraction or an exponent is read as a ``Decimal``. One that is written again is written as it came:
``json`` alone would make ``12345678901234567000.0`` of ``12345678901234567890.10``.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any


class RawJson(Decimal):
    """A number of the event's JSON: a ``Decimal`` to reckon with, and its text as the publisher wrote it."""

    text: str

    def __new__(cls, text: str) -> RawJson:
        number = super().__new__(cls, text)
        number.text = text
        return number


class _Number(float):
    """What makes ``json`` write a number by its text: it writes floats by their ``__repr__``."""

    def __new__(cls, text: str) -> _Number:
        number = super().__new__(cls, 0.0)
        number._text = text
        return number

    _text: str

    def __repr__(self) -> str:
        return self._text


def loads(text: bytes | str) -> Any:
    """Reads JSON. Raises ``ValueError`` where it is none."""
    return json.loads(text, parse_float=RawJson, parse_constant=_refuse)


def dumps(value: Any) -> bytes:
    """Writes compact JSON, in UTF-8. Raises ``TypeError`` or ``ValueError`` for what JSON can't hold."""
    return json.dumps(_writable(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _writable(value: Any) -> Any:
    """The same with every ``Decimal`` in the form that ``json`` writes by its text."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} can't be written as JSON")
        return _number(value.text if isinstance(value, RawJson) else str(value))
    if isinstance(value, dict):
        return {name: _writable(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(item) for item in value]
    return value


def _number(text: str) -> Any:
    return _Number(text)
