// Says what a plugin in TypeScript sees, and fails in each way there is.
import { addDays, format } from "date-fns";
import { type Event, type Webhook, config, log, retry, webhook } from "wirehook";
import { z } from "zod";
import { charge } from "./broken.ts";

const Order = z.object({ email: z.email(), total: z.number().positive(), tags: z.array(z.string()).default([]) });

let calls = 0;

function globals() {
  const url = new URL("../b?x=1&y=%C3%B6#z", "https://user@example.com:8443/a/c");
  const nested = { when: new Date(0), map: new Map([["a", new Uint8Array([1, 2])]]) };
  const copy = structuredClone(nested);
  return {
    now: new Date().toISOString(),
    nowAgain: Date.now(),
    random: Math.random(),
    uuid: crypto.randomUUID(),
    bytes: Array.from(crypto.getRandomValues(new Uint8Array(4))),
    text: new TextDecoder().decode(new TextEncoder().encode("ö€😀")),
    url: [url.href, url.port, url.searchParams.get("y")],
    copied: copy.map !== nested.map && copy.map.get("a")?.[1] === 2 && copy.when.getTime() === 0,
    elapsed: performance.now(),
    base64: [btoa("hello"), atob("aGVsbG8=")],
    nodeThings: [typeof globalThis.process, typeof globalThis.require],
    calls: ++calls,
    currency: config.get("currency") ?? null,
  };
}

function libraries(event: Event) {
  const order = Order.safeParse(event.entity());
  const issues = order.success ? [] : order.error.issues.map((issue) => issue.path.join("."));
  return {
    issues,
    tags: order.success ? order.data.tags : null,
    due: format(addDays(new Date(event.timestamp ?? 0), 30), "yyyy-MM-dd EEEE"),
  };
}

export function onEvent(event: Event): Webhook[] {
  switch (event.operation) {
    case "created":
      console.log("probing", { subject: event.subject });
      log.warn("a warning");
      return [webhook.json({ ...globals(), libraries: libraries(event) })];
    case "updated":
      throw retry("not yet");
    case "deleted":
      return [webhook.json(charge({ lines: [] }))];
    case "exact":
      return [webhook.json(event.entityExact())];
    case "text":
      return [webhook.bytes(event.entityText() ?? "")];
    default:
      throw "a text";
  }
}
