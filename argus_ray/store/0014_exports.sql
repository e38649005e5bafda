-- A task can be an export: it makes a Hugging Face folder of a checkpoint of another one.

ALTER TABLE tasks ADD COLUMN export_of TEXT REFERENCES tasks (task_id);
-- Of which checkpoint, as JSON (core/exports.py). `workload` of such a row is that of the task whose checkpoint it is.
ALTER TABLE tasks ADD COLUMN export TEXT
    CHECK ((export IS NULL) = (export_of IS NULL)
           AND (export IS NULL OR (json_valid(export) AND json_type(export, '$.job_root') IS 'text')));

CREATE INDEX exports_of_task ON tasks (export_of, seq) WHERE export_of IS NOT NULL;
CREATE INDEX exports_not_over ON tasks (user_id) WHERE export_of IS NOT NULL AND ended_at IS NULL;
CREATE INDEX exports_that_wait ON tasks (seq)
    WHERE export IS NOT NULL AND state IN ('QUEUED', 'PENDING_RESOURCES');

DROP TRIGGER identity_of_a_task;
CREATE TRIGGER identity_of_a_task
    BEFORE UPDATE OF seq, task_id, user_id, spec_yaml, idempotency_key, resubmitted_from, resume_roots, settings, presets,
                     export_of, export ON tasks
BEGIN
    SELECT RAISE(ABORT, 'a task keeps its place, its owner, its spec, its settings and its origin');
END;
