"""From the plugin's function to the contract's result."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from types import ModuleType

from .event import Event
from .failure import Failure, Reject
from .webhook import Webhook

Handler = Callable[[Event], "list[Webhook]"]

#: The host keeps 2 KiB of a reason; the end of a traceback says most.
REASON_BYTES_MAX = 2048

#: Where Python's own modules and the SDK's are: no lines of the plugin's.
_NOT_THE_PLUGINS = (os.path.dirname(os.__file__) + os.sep, os.path.dirname(__file__) + os.sep)

_decorated: list[Handler] = []


def handler(function: Handler) -> Handler:
    """Makes ``function`` the plugin's; a function called ``on_event`` needs no decorator."""
    _decorated[:] = [function]
    return function


def of_module(module: ModuleType) -> Handler:
    """The plugin's function. Raises ``TypeError`` where the module has none."""
    function = _decorated[0] if _decorated else getattr(module, "on_event", None)
    if not callable(function):
        raise TypeError(f"{module.__name__} has no function on_event(event), nor one decorated with @wirehook.handler")
    return function


def run(function: Handler, event: Event) -> list[Webhook]:
    """One call as the host makes it: whatever else is raised becomes a ``Reject``."""
    try:
        webhooks = function(event)
        if not isinstance(webhooks, list) or not all(isinstance(webhook, Webhook) for webhook in webhooks):
            raise Reject(f"on_event must return a list of Webhook, not {webhooks!r:.200}")
        return webhooks
    except Failure:
        raise
    except Exception as error:
        raise Reject(readable(error)) from error


def is_the_plugins(file: str) -> bool:
    """Whether ``file`` is neither Python's nor the SDK's; what has no file is neither."""
    return not file.startswith((*_NOT_THE_PLUGINS, "<"))


def readable(error: BaseException) -> str:
    """The error first, then the plugin's own lines, the innermost first; the SDK's and Python's are left out."""
    lines = ["".join(traceback.format_exception_only(error)).strip()]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_the_plugins(frame.filename):
            source = f": {frame.line}" if frame.line else ""
            lines.append(f"  at {frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} in {frame.name}{source}")
    return "\n".join(lines).encode()[:REASON_BYTES_MAX].decode(errors="ignore")
