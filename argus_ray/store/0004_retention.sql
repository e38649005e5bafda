-- Where the job roots of a task are, and how large.

-- LEAVING: it was decided that they go; from here on nobody resumes from them. Then they are moved, then deleted.
ALTER TABLE tasks ADD COLUMN files_at TEXT NOT NULL DEFAULT 'JOB_ROOT'
    CHECK (files_at IN ('JOB_ROOT', 'LEAVING', 'TRASH', 'DELETED') AND (files_at = 'JOB_ROOT' OR ended_at IS NOT NULL));
ALTER TABLE tasks ADD COLUMN trashed_at REAL CHECK ((trashed_at IS NULL) = (files_at IN ('JOB_ROOT', 'LEAVING')));
-- The slow pass over the disk leaves it alone until then.
ALTER TABLE tasks ADD COLUMN look_after REAL NOT NULL DEFAULT 0;

CREATE INDEX tasks_by_files ON tasks (files_at, look_after);
CREATE INDEX tasks_at_home_by_end ON tasks (ended_at) WHERE files_at = 'JOB_ROOT' AND ended_at IS NOT NULL;
CREATE INDEX tasks_that_resume ON tasks (state) WHERE resume_roots IS NOT NULL;

CREATE TABLE disk_use (
    submission_id TEXT    PRIMARY KEY REFERENCES attempts (submission_id),
    bytes         INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT, WITHOUT ROWID;
