-- Endpoints that were ever configured: whether attempts at them are made, and how they fare. Deliveries wait untouched while
-- their endpoint is paused or disabled.
CREATE TABLE endpoint_state (
  name            TEXT PRIMARY KEY,
  state           TEXT NOT NULL,              -- active, paused or disabled
  since           INTEGER NOT NULL,           -- Unix milliseconds
  reason          TEXT NOT NULL,              -- who put it there, and why
  failing_ms      INTEGER NOT NULL DEFAULT 0, -- for how long every attempt has failed
  last_success_at INTEGER,
  last_failure_at INTEGER
) STRICT, WITHOUT ROWID;
