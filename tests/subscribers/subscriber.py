"""The subscriber of FraiseQL's webhooks page, and two that somebody took care of.

`subscriber.py NATS RECEIVER page|tuned|aiohttp`, with the secret in `SUBSCRIBER_SECRET`; prints `ready`, and runs until it is
killed. It fails on any refusal: a yardstick that loses events measures nothing.
"""

import asyncio
import hashlib
import hmac
import itertools
import json
import os
import sys
import time

import aiohttp
import httpx
import nats

SUBJECT = "fraiseql.order.created"
IN_FLIGHT = 64
SECRET = os.environ["SUBSCRIBER_SECRET"].encode()

numbers = itertools.count()


def webhook(data: bytes) -> tuple[bytes, dict[str, str]]:
    """The page's payload with the page's signature, and the id that the receiver counts by."""
    event = json.loads(data.decode())
    entity = event["entity"]
    payload = {
        "event": "order.created",
        "order_id": event["entity_id"],
        "customer_email": entity.get("customer_email"),
        "total": entity.get("total"),
    }
    body = json.dumps(payload).encode()
    timestamp = str(int(time.time()))
    message = f"{timestamp}.".encode() + body
    headers = {
        "Content-Type": "application/json",
        "X-Signature": "sha256=" + hmac.new(SECRET, message, hashlib.sha256).hexdigest(),
        "X-Timestamp": timestamp,
        "Webhook-Id": f"msg_{next(numbers):032x}",
    }
    return body, headers


def page(receiver: str):
    """As on the page: a client for each event, and one event after the other."""

    async def handle(msg) -> None:
        body, headers = webhook(msg.data)
        async with httpx.AsyncClient() as client:
            response = await client.post(receiver, content=body, headers=headers, timeout=10.0)
            response.raise_for_status()

    return handle


def tuned(receiver: str):
    """One client that keeps its connections, and 64 events under way."""
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    client = httpx.AsyncClient(limits=limits, timeout=10.0)

    async def post(body: bytes, headers: dict[str, str]) -> None:
        response = await client.post(receiver, content=body, headers=headers)
        response.raise_for_status()

    return many_at_once(post)


def other_client(receiver: str):
    """The same with aiohttp."""
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    client = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10.0))

    async def post(body: bytes, headers: dict[str, str]) -> None:
        async with client.post(receiver, data=body, headers=headers) as response:
            response.raise_for_status()
            await response.read()

    return many_at_once(post)


def many_at_once(post):
    """Handles events with 64 of them under way."""
    room = asyncio.Semaphore(IN_FLIGHT)
    tasks = set()

    async def send(data: bytes) -> None:
        try:
            await post(*webhook(data))
        except Exception as error:
            fail(error)
        finally:
            room.release()

    async def handle(msg) -> None:
        await room.acquire()
        task = asyncio.create_task(send(msg.data))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return handle


def fail(error: Exception) -> None:
    print(f"subscriber.py: {error!r}", file=sys.stderr, flush=True)
    os._exit(1)


async def failed(error: Exception) -> None:
    fail(error)


async def main() -> None:
    server, receiver, way = sys.argv[1:]
    nc = await nats.connect(server, error_cb=failed)
    await nc.subscribe(SUBJECT, cb={"page": page, "tuned": tuned, "aiohttp": other_client}[way](receiver))
    await nc.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
