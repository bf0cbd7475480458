-- Names of entities and deliveries, a few thousand in one row and in the order of their positions: what `trace` looks through
-- instead of the events themselves. Written behind the path, so that accepting an event costs no random write.
CREATE TABLE lookup (
  kind      TEXT NOT NULL,    -- event or delivery
  last_seq  INTEGER NOT NULL, -- the position of the last name in it; the names after it are in the rows alone
  first_seq INTEGER NOT NULL, -- positions in `names` are counted from here
  names     BLOB NOT NULL     -- lines of a name, a tab and its position
) STRICT;

CREATE UNIQUE INDEX lookup_last ON lookup (kind, last_seq);
