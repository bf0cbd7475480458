-- What each dead letter keeps, so that all of them together have a bound: about the bytes of its message, or of its event and
-- webhook with what its attempts were answered.
ALTER TABLE dead_letter ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

UPDATE dead_letter SET bytes = 512 + coalesce(octet_length(payload), 0) + octet_length(detail)
  + coalesce((SELECT r.bytes FROM run r
              WHERE r.event_seq = dead_letter.event_seq AND r.plugin = dead_letter.plugin), 0)
  + coalesce((SELECT d.bytes FROM delivery d WHERE d.seq = dead_letter.delivery_seq), 0);

-- The oldest of each source (messages), plugin (runs) and endpoint (deliveries): those make room first.
CREATE INDEX dead_letter_by_holder ON dead_letter (kind, coalesce(endpoint, plugin, source), id);

INSERT INTO tally (kind, name, state, count)
  SELECT 'dead_letter_bytes', coalesce(endpoint, plugin, source), kind, sum(bytes) FROM dead_letter GROUP BY 2, 3;
