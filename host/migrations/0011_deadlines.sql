-- Of a run's tries within the present budget, those that broke the deadline: they have a budget of their own.
ALTER TABLE run ADD COLUMN deadlines INTEGER NOT NULL DEFAULT 0;
