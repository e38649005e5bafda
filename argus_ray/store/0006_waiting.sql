-- Why a task waits, as data. With a code (argus_ray/core/reasons.py) `reason` holds its facts as a JSON object; without
-- one it holds words, as in older rows and in those of tasks that have ended.
ALTER TABLE tasks ADD COLUMN reason_code TEXT
    CHECK (reason_code IS NULL OR (reason IS NOT NULL AND json_valid(reason) AND json_type(reason) = 'object'));

-- When each task that waits is looked at again was a promise, renewed row by row. It is told from the settings now, and
-- nothing writes this column any more.
UPDATE tasks SET next_retry_at = NULL WHERE next_retry_at IS NOT NULL;
