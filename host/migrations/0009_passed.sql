-- Time that has passed, which no step of the wall clock moves: what is deleted by its age is deleted by this.

-- What the store's clock showed last, and what the machine's clocks showed then. One row.
CREATE TABLE passed_clock (
  id              INTEGER PRIMARY KEY CHECK (id = 1),
  at              INTEGER NOT NULL, -- milliseconds; it began with the wall clock's when this table was made
  boot            TEXT NOT NULL,    -- tells one start of the machine from another
  since_boot      INTEGER NOT NULL, -- milliseconds
  wall            INTEGER NOT NULL, -- Unix milliseconds
  is_synchronised INTEGER NOT NULL  -- whether the wall clock was known to follow a reference
) STRICT;

-- How far the wall clock was ahead of the store's, from which moment on; a row each time that it was set.
CREATE TABLE wall_stretch (
  from_passed INTEGER PRIMARY KEY,
  ahead_ms    INTEGER NOT NULL
) STRICT;

-- The clock goes on from when the host before was seen last. A new store has none yet: it begins as it is opened.
INSERT INTO passed_clock (id, at, boot, since_boot, wall, is_synchronised)
  SELECT 1, max(seen_at), '', 0, max(seen_at), 0 FROM host HAVING max(seen_at) IS NOT NULL;

-- When a row came to the state that it is in, by the store's clock. None in rows of before: those are as old as the wall
-- clock said, and not younger than this migration.
ALTER TABLE event ADD COLUMN aged_from INTEGER;
ALTER TABLE run ADD COLUMN aged_from INTEGER;
ALTER TABLE delivery ADD COLUMN aged_from INTEGER;
ALTER TABLE dead_letter ADD COLUMN aged_from INTEGER;

-- By the store's clock from here on. What a wall clock that was ahead has stamped is as old as this migration.
UPDATE dedup SET seen_at = (SELECT at FROM passed_clock) WHERE seen_at > (SELECT at FROM passed_clock);
