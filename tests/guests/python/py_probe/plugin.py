"""Tells what a component sees of clocks, randomness and the machine; or fails as the event says."""

import datetime
import logging
import os
import random
import secrets
import time
import uuid
import zoneinfo
from datetime import date

import wirehook
from wirehook import Event, Webhook

calls = 0


def on_event(event: Event) -> list[Webhook]:
    global calls
    calls += 1
    wish = (event.entity or {}).get("wish")
    if wish == "raise":
        return deeper({})
    if wish == "sleep":
        time.sleep(1)
    if wish == "zone":
        zoneinfo.ZoneInfo("Europe/Paris")
    if wish == "import":
        import colorsys  # noqa: F401
    if wish == "open":
        return [Webhook(open("/etc/passwd", "rb").read())]
    started = time.monotonic()
    now = datetime.datetime.now(datetime.timezone.utc)
    print("printed")
    logging.getLogger("probe").warning("logged")
    return [
        Webhook.json(
            {
                "now": now.isoformat(),
                "is_datetime": isinstance(event.now, datetime.datetime),
                "today": date.today().isoformat(),
                "time": time.time(),
                "local": time.strftime("%Y-%m-%d %H:%M:%S"),
                "went_on": time.monotonic() > started,
                "random": [random.random(), random.Random().random(), event.random.random()],
                "secret": secrets.token_hex(8),
                "uuid": str(uuid.uuid4()),
                "urandom": os.urandom(4).hex(),
                "variables": len(os.environ),
                "config": wirehook.config.get("absent", "none"),
                "calls": calls,
            }
        )
    ]


def deeper(order: dict) -> list[Webhook]:
    return order["total"]
