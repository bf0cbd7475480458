-- Order, where an endpoint asks for it, and the size of what waits.
--
-- `order_key` is a hash of plugin, tenant, entity type and entity id; null where no order is kept. A delivery that something
-- precedes in its order is due at the greatest integer: never, until what precedes it has ended.
ALTER TABLE run ADD COLUMN order_key INTEGER;
ALTER TABLE delivery ADD COLUMN order_key INTEGER;

-- Bytes of a run's entity, of a delivery's body and headers; 0 for those written before they were counted.
ALTER TABLE run ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

-- What has not ended, in its order. Rows without a key are in neither.
CREATE INDEX run_order ON run (order_key, event_seq)
  WHERE order_key IS NOT NULL AND state IN ('pending', 'retrying', 'parked');
CREATE INDEX delivery_order ON delivery (order_key, endpoint, event_seq, seq)
  WHERE order_key IS NOT NULL AND state IN ('pending', 'retrying');
