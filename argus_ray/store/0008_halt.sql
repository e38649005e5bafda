-- As what an attempt ends that Argus has stopped (`stop_reason`): a failure of the program by default; one that was
-- never given its gang goes back to wait.
ALTER TABLE attempts ADD COLUMN stop_outcome TEXT NOT NULL DEFAULT 'APPLICATION'
    CHECK (stop_outcome IN ('APPLICATION', 'INFRASTRUCTURE', 'INSUFFICIENT_RESOURCES'));
