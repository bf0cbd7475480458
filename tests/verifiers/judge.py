"""Judges webhooks with the library of Standard Webhooks on PyPI.

Reads JSON lines, each with `judge`, `headers`, `body_base64` and `secret`; prints `ok`, or why not, for each.
"""

import base64
import json
import sys

from standardwebhooks.webhooks import Webhook


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        body = base64.b64decode(request["body_base64"])
        try:
            Webhook(request["secret"]).verify(body, request["headers"])
            print("ok", flush=True)
        except Exception as error:
            print(f"{request['judge']}: {error!r}", flush=True)


if __name__ == "__main__":
    main()
