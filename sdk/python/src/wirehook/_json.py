"""JSON whose numbers keep their digits.

A number with a fraction or an exponent is read as a ``Decimal``, and one that is written again is written as it came: the
``json`` of the standard library would make ``12345678901234567000.0`` of ``12345678901234567890.10``, and has no way to
write a ``Decimal`` at all.
"""

from __future__ import annotations

import json
from decimal import Decimal
from json.encoder import encode_basestring as _quoted
from typing import Any


class RawJson(Decimal):
    """A number of the event's JSON: a ``Decimal`` to reckon with, and its text as the publisher wrote it."""

    text: str

    def __new__(cls, text: str) -> RawJson:
        number = super().__new__(cls, text)
        number.text = text
        return number


def loads(text: bytes | str) -> Any:
    """Reads JSON. Raises ``ValueError`` where it is none."""
    return json.loads(text, parse_float=RawJson, parse_constant=_refuse)


def dumps(value: Any) -> bytes:
    """Writes compact JSON, in UTF-8. Raises ``TypeError`` or ``ValueError`` for what JSON can't hold."""
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _write(value: Any, parts: list[str]) -> None:
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, str):
        parts.append(_quoted(value))
    elif isinstance(value, RawJson):
        parts.append(value.text)
    elif isinstance(value, (Decimal, float)):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{value} can't be written as JSON")
        parts.append(str(value) if isinstance(value, Decimal) else float.__repr__(value))
    elif isinstance(value, int):
        parts.append(int.__repr__(value))
    elif isinstance(value, dict):
        _write_members(value, parts)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            parts.append("," if index else "[")
            _write(item, parts)
        parts.append("]" if value else "[]")
    else:
        raise TypeError(f"{type(value).__name__} can't be written as JSON: {value!r:.100}")


def _write_members(members: dict[Any, Any], parts: list[str]) -> None:
    for index, (name, member) in enumerate(members.items()):
        if not isinstance(name, str):
            raise TypeError(f"a member's name is a str, not {name!r:.100}")
        parts.append(("," if index else "{") + _quoted(name) + ":")
        _write(member, parts)
    parts.append("}" if members else "{}")
