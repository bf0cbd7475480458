-- What an operator has told to wait: a row for as long as the pause lasts, over restarts.
CREATE TABLE pause (
  kind  TEXT NOT NULL, -- plugin or source
  name  TEXT NOT NULL,
  since INTEGER NOT NULL, -- Unix milliseconds
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- How many died lately, by reason, without reading the letters.
CREATE INDEX dead_letter_by_time ON dead_letter (died_at, reason);
