-- Runs that were under way when a host ended without stopping. Each is called alone, until it has come to an outcome or is
-- a dead letter.
CREATE TABLE suspect (
  event_seq     INTEGER NOT NULL,
  plugin        TEXT NOT NULL,
  crashes       INTEGER NOT NULL, -- hosts that ended while it was under way
  crashes_alone INTEGER NOT NULL, -- those of them that had nothing else under way
  PRIMARY KEY (event_seq, plugin)
) STRICT, WITHOUT ROWID;
