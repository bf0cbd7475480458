-- What plugins with the grant `state` keep between events.

CREATE TABLE plugin_state (
  plugin     TEXT NOT NULL,
  key        TEXT NOT NULL,
  written_by INTEGER NOT NULL, -- the event whose run wrote it
  call       INTEGER NOT NULL, -- of that run; with `written_by` the value's version
  value      BLOB NOT NULL,
  PRIMARY KEY (plugin, key)
) STRICT, WITHOUT ROWID;

-- Kept in the transactions that change `plugin_state`, so that its bounds are checked without reading it all.
CREATE TABLE plugin_state_usage (
  plugin TEXT PRIMARY KEY,
  keys   INTEGER NOT NULL,
  bytes  INTEGER NOT NULL -- of keys and values
) STRICT, WITHOUT ROWID;
