-- A task can be made again from one that has ended.

ALTER TABLE tasks ADD COLUMN resubmitted_from TEXT REFERENCES tasks (task_id);
-- A JSON list of job roots, oldest first: the first attempt resumes from the newest checkpoint in one of them. NULL:
-- it begins at the beginning. An empty list: it was to resume, and nothing was there.
ALTER TABLE tasks ADD COLUMN resume_roots TEXT
    CHECK (resume_roots IS NULL
           OR (resubmitted_from IS NOT NULL AND json_valid(resume_roots) AND json_type(resume_roots) = 'array'));

DROP TRIGGER identity_of_a_task;
CREATE TRIGGER identity_of_a_task
    BEFORE UPDATE OF seq, task_id, user_id, spec_yaml, idempotency_key, resubmitted_from, resume_roots ON tasks
BEGIN
    SELECT RAISE(ABORT, 'a task keeps its place, its owner, its spec and its origin');
END;
