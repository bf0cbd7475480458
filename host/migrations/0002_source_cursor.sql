-- Where a source stands at its bus, where the bus itself doesn't keep that. Written in the transaction that accepts what
-- the source had read until there.
CREATE TABLE source_cursor (
  source TEXT PRIMARY KEY,
  value BLOB NOT NULL, -- only the source knows what it says
  kept_at INTEGER NOT NULL -- Unix milliseconds
) STRICT, WITHOUT ROWID;
