-- Settings of verl, as they were resolved when a task was accepted: each of its attempts uses them, whatever the
-- configuration says by then. One row a content, since most tasks have the same. Nothing is ever removed from `tasks`, so
-- a row that was once referred to always is, and none of these is ever removed either.
CREATE TABLE settings (
    -- SHA-256 of the text.
    digest TEXT NOT NULL PRIMARY KEY CHECK (length(digest) = 64 AND digest NOT GLOB '*[^0-9a-f]*'),
    text   TEXT NOT NULL CHECK (json_valid(text) AND json_type(text) = 'array')
) STRICT, WITHOUT ROWID;

CREATE TRIGGER settings_are_not_changed BEFORE UPDATE ON settings
BEGIN
    SELECT RAISE(ABORT, 'settings that a task was accepted with stay as they are');
END;

-- NULL: a task of an earlier version, whose attempts use the defaults of the version that starts them.
ALTER TABLE tasks ADD COLUMN settings TEXT REFERENCES settings (digest);
-- The names that were chosen at the submission, in their order.
ALTER TABLE tasks ADD COLUMN presets TEXT NOT NULL DEFAULT '[]'
    CHECK (json_valid(presets) AND json_type(presets) = 'array');

DROP TRIGGER identity_of_a_task;
CREATE TRIGGER identity_of_a_task
    BEFORE UPDATE OF seq, task_id, user_id, spec_yaml, idempotency_key, resubmitted_from, resume_roots, settings, presets
    ON tasks
BEGIN
    SELECT RAISE(ABORT, 'a task keeps its place, its owner, its spec, its settings and its origin');
END;
