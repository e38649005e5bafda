-- An attempt that runs and makes no step.

ALTER TABLE attempts ADD COLUMN stalled_since REAL;
ALTER TABLE attempts ADD COLUMN stalled_why TEXT CHECK ((stalled_why IS NULL) = (stalled_since IS NULL));
-- Why Argus itself is ending it. It stays in its state until its job is seen to be over.
ALTER TABLE attempts ADD COLUMN stop_reason TEXT CHECK (length(stop_reason) >= 1);
