"""Write a Wirehook plugin in Python: one function, ``on_event(event) -> list[Webhook]``."""

from . import config, log
from ._json import RawJson
from .event import Event
from .failure import Reject, Retry
from ._call import Handler, handler
from .webhook import Webhook

__all__ = ["Event", "Handler", "RawJson", "Reject", "Retry", "Webhook", "config", "handler", "log"]
