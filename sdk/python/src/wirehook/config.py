"""What the sidecar's ``[config]`` says. Never a secret. Natively it is what ``wirehook.testing.config`` was given."""

from __future__ import annotations

from . import _host


def get(name: str, default: str | None = None) -> str | None:
    """The value of ``name``, else ``default``. Strings as they are, other values as TOML writes them."""
    value = _host.current.get(name)
    return default if value is None else value


def all() -> dict[str, str]:
    """Every name and its value, ordered by name."""
    return dict(_host.current.all())
