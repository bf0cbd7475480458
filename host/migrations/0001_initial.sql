-- The store's first schema. Times are milliseconds since the Unix epoch; the views at the end show them as text.

-- Hosts that have this store open. A claim (`claimed_by`) is a host's id and holds while the host is seen.
CREATE TABLE host (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  pid        INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  seen_at    INTEGER NOT NULL
) STRICT;

-- Plugins that were ever loaded and not forgotten.
CREATE TABLE plugin (
  name     TEXT PRIMARY KEY,
  subjects TEXT NOT NULL, -- JSON array
  digest   TEXT NOT NULL  -- hex SHA-256 of the file last loaded
) STRICT, WITHOUT ROWID;

-- Every key accepted within `[retention] dedup`. `seq` is shared with `event`; a dead message has a `seq` of its own.
CREATE TABLE dedup (
  seq         INTEGER PRIMARY KEY,
  key         TEXT NOT NULL UNIQUE,
  body_digest BLOB NOT NULL,
  seen_at     INTEGER NOT NULL
) STRICT;

-- Events, in accept order. A row is written once and never changed.
CREATE TABLE event (
  seq         INTEGER PRIMARY KEY,
  accepted_at INTEGER NOT NULL,
  run_count   INTEGER NOT NULL, -- plugins subscribed when it was accepted
  key         TEXT NOT NULL,
  source      TEXT NOT NULL,
  subject     TEXT NOT NULL,
  entity_type TEXT NOT NULL,
  operation   TEXT NOT NULL,
  entity_id   TEXT,
  tenant_id   TEXT,
  timestamp   TEXT,
  body_digest BLOB NOT NULL,
  attributes  TEXT NOT NULL,    -- JSON array of [name, value]
  entity      ANY,              -- text; a blob where it is not UTF-8
  previous    ANY
) STRICT;

-- One plugin's work on one event: pending, retrying, parked, produced, filtered, dead or discarded.
CREATE TABLE run (
  event_seq              INTEGER NOT NULL,
  plugin                 TEXT NOT NULL,
  state                  TEXT NOT NULL,
  attempts               INTEGER NOT NULL DEFAULT 0,
  attempts_before_budget INTEGER NOT NULL DEFAULT 0,
  due_at                 INTEGER NOT NULL, -- speaks of a pending or retrying run only
  claimed_by             INTEGER,
  ended_at               INTEGER,          -- of the last try
  delivery_from          INTEGER,          -- its deliveries are `delivery_count` rows from here
  delivery_count         INTEGER NOT NULL DEFAULT 0,
  plugin_digest          TEXT,
  detail                 TEXT,
  PRIMARY KEY (event_seq, plugin)
) STRICT, WITHOUT ROWID;

-- Only work that waits in the store is indexed: what a host claims as it writes it never touches these.
CREATE INDEX run_claimable ON run (plugin, due_at, event_seq)
  WHERE claimed_by IS NULL AND state IN ('pending', 'retrying');
CREATE INDEX run_parked ON run (plugin, event_seq) WHERE state = 'parked';

-- One webhook for one endpoint: pending, retrying, delivered, dead or discarded.
CREATE TABLE delivery (
  seq                    INTEGER PRIMARY KEY,
  id                     TEXT NOT NULL, -- webhook-id
  event_seq              INTEGER NOT NULL,
  plugin                 TEXT NOT NULL,
  endpoint               TEXT NOT NULL,
  state                  TEXT NOT NULL,
  attempts               INTEGER NOT NULL DEFAULT 0,
  attempts_before_budget INTEGER NOT NULL DEFAULT 0,
  due_at                 INTEGER NOT NULL, -- speaks of a pending or retrying delivery only
  claimed_by             INTEGER,
  created_at             INTEGER NOT NULL,
  ended_at               INTEGER,          -- of the last attempt
  last_status            INTEGER,
  last_error             TEXT
) STRICT;

CREATE INDEX delivery_claimable ON delivery (endpoint, due_at, seq)
  WHERE claimed_by IS NULL AND state IN ('pending', 'retrying');

-- What a delivery sends: apart from it, so that recording an attempt does not write the body again.
CREATE TABLE webhook (
  delivery_seq INTEGER PRIMARY KEY,
  content_type TEXT NOT NULL,
  headers      TEXT NOT NULL, -- JSON array of [name, value]
  body         ANY NOT NULL   -- text; a blob where it is not UTF-8
) STRICT;

CREATE TABLE attempt (
  delivery_seq INTEGER NOT NULL,
  number       INTEGER NOT NULL, -- from 1, over the delivery's whole life
  started_at   INTEGER NOT NULL,
  duration_us  INTEGER NOT NULL,
  status       INTEGER,
  error        TEXT,
  response     ANY,              -- the first bytes; text, or a blob where they are not UTF-8
  PRIMARY KEY (delivery_seq, number)
) STRICT, WITHOUT ROWID;

-- What will not be tried again by itself. Exactly one row for each run and delivery in state `dead`.
CREATE TABLE dead_letter (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  kind         TEXT NOT NULL, -- message, run or delivery
  reason       TEXT NOT NULL,
  detail       TEXT NOT NULL,
  died_at      INTEGER NOT NULL,
  event_key    TEXT NOT NULL,
  subject      TEXT NOT NULL,
  source       TEXT NOT NULL,
  event_seq    INTEGER,       -- of runs and deliveries
  plugin       TEXT,
  delivery_seq INTEGER,       -- of deliveries
  endpoint     TEXT,
  body_digest  BLOB,          -- of messages
  payload      ANY            -- of messages; the rest is with the event or the delivery
) STRICT;

CREATE INDEX dead_letter_of_event ON dead_letter (event_seq, plugin, delivery_seq) WHERE event_seq IS NOT NULL;
CREATE UNIQUE INDEX dead_letter_conflict ON dead_letter (event_key, body_digest) WHERE reason = 'id_conflict';

-- How many rows there are of each, kept in the transactions that change them, so that counting never reads history.
CREATE TABLE tally (
  kind  TEXT NOT NULL, -- event, run, delivery or dead_letter
  name  TEXT NOT NULL, -- the plugin of runs, the endpoint of deliveries, the reason of dead letters
  state TEXT NOT NULL, -- events: routed or unrouted; dead letters: their kind
  count INTEGER NOT NULL,
  PRIMARY KEY (kind, name, state)
) STRICT, WITHOUT ROWID;

-- The highest positions that were ever swept away, so that none is given twice.
CREATE TABLE sequence (
  name TEXT PRIMARY KEY, -- event or delivery
  last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO sequence (name, last) VALUES ('event', 0), ('delivery', 0);

CREATE VIEW v_event AS
  SELECT seq, key, source, subject, entity_type, operation, entity_id, tenant_id, timestamp, run_count,
         strftime('%Y-%m-%dT%H:%M:%fZ', accepted_at / 1000.0, 'unixepoch') AS accepted, entity, previous, attributes
  FROM event;

CREATE VIEW v_run AS
  SELECT r.event_seq, e.key AS event_key, e.subject, r.plugin, r.state, r.attempts, r.delivery_count, r.claimed_by,
         CASE WHEN r.state IN ('pending', 'retrying')
              THEN strftime('%Y-%m-%dT%H:%M:%fZ', r.due_at / 1000.0, 'unixepoch') END AS due,
         strftime('%Y-%m-%dT%H:%M:%fZ', r.ended_at / 1000.0, 'unixepoch') AS ended, r.detail, r.plugin_digest
  FROM run r LEFT JOIN event e ON e.seq = r.event_seq;

CREATE VIEW v_delivery AS
  SELECT d.seq, d.id, e.key AS event_key, e.subject, d.plugin, d.endpoint, d.state, d.attempts, d.claimed_by,
         CASE WHEN d.state IN ('pending', 'retrying')
              THEN strftime('%Y-%m-%dT%H:%M:%fZ', d.due_at / 1000.0, 'unixepoch') END AS due,
         strftime('%Y-%m-%dT%H:%M:%fZ', d.created_at / 1000.0, 'unixepoch') AS created,
         strftime('%Y-%m-%dT%H:%M:%fZ', d.ended_at / 1000.0, 'unixepoch') AS ended,
         d.last_status, d.last_error, w.content_type, w.headers, w.body
  FROM delivery d LEFT JOIN event e ON e.seq = d.event_seq LEFT JOIN webhook w ON w.delivery_seq = d.seq;

CREATE VIEW v_attempt AS
  SELECT d.id, a.number, strftime('%Y-%m-%dT%H:%M:%fZ', a.started_at / 1000.0, 'unixepoch') AS started,
         a.duration_us / 1e6 AS duration_s, a.status, a.error, a.response
  FROM attempt a JOIN delivery d ON d.seq = a.delivery_seq;

CREATE VIEW v_dead_letter AS
  SELECT l.id, l.kind, l.reason, l.detail, strftime('%Y-%m-%dT%H:%M:%fZ', l.died_at / 1000.0, 'unixepoch') AS died,
         l.event_key, l.subject, l.source, l.plugin, l.endpoint, d.id AS delivery_id, l.payload
  FROM dead_letter l LEFT JOIN delivery d ON d.seq = l.delivery_seq;
