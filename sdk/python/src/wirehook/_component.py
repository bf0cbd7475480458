"""The component's entry; ``plugin build`` gives it to componentize-py. It is never imported natively."""

from __future__ import annotations

from . import _deterministic, _host, _sealed

_deterministic.install()

import gc  # noqa: E402
import linecache  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402

from componentize_py_types import Err  # noqa: E402
from wit_world import exports  # noqa: E402
from wit_world.imports import config, log, types  # noqa: E402

from . import _call  # noqa: E402
from .event import Event  # noqa: E402
from .failure import Failure, Retry  # noqa: E402
from .log import LogHandler, Printed  # noqa: E402

_LEVELS = {level.name.lower(): level for level in log.Level}


class _Component:
    def log(self, level: str, message: str) -> None:
        log.log(_LEVELS[level], message)

    def get(self, name: str) -> str | None:
        return config.get(name)

    def all(self) -> list[tuple[str, str]]:
        return config.all()


_host.current = _Component()
sys.stdout, sys.stderr = Printed("info"), Printed("warn")
logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[LogHandler()])

import plugin  # noqa: E402

_function = _call.of_module(plugin)


def _keep_sources() -> None:
    """A traceback shows lines, and when an event comes there is no file to read them from: they are read at the build."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    kept = {file: linecache.getlines(file) for file in files if file and _call.is_the_plugins(file)}
    linecache.clearcache()
    for file, lines in kept.items():
        linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
    setattr(linecache, "checkcache", lambda filename=None: None)
    setattr(linecache, "updatecache", lambda filename, module_globals=None: [])


_keep_sources()
_sealed.seal()
# What is here now stays: a collection would look at all of it, and a fresh sandbox would pay for every page it is on.
gc.collect()
gc.freeze()


class Handler(exports.Handler):
    """The contract's export."""

    def on_event(self, event: types.Event) -> list[types.Webhook]:
        given = Event(
            key=event.key,
            subject=event.subject,
            entity_type=event.entity_type,
            operation=event.operation,
            entity_id=event.entity_id,
            tenant_id=event.tenant_id,
            timestamp=event.timestamp,
            entity_json=event.entity,
            previous_json=event.previous,
            attributes=event.attributes,
            attempt=event.attempt,
        )
        _deterministic.begin(given)
        try:
            webhooks = _call.run(_function, given)
        except Failure as failure:
            case = types.Failure_Retry if isinstance(failure, Retry) else types.Failure_Reject
            raise Err(case(failure.reason)) from None
        return [types.Webhook(w.endpoint, w.key, w.content_type, w.headers, w.body) for w in webhooks]
