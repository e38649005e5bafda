-- Of each task the number of its newest visible change, so that whoever follows asks for what came after a number. A
-- change is visible if a list of tasks would show it, or if an attempt of the task has moved.

-- `newest`: the highest number. `key`: what numbers are hidden by where users see them (core/places.py); a restored
-- database needs another one, since numbers of the time before would be given again.
CREATE TABLE change_clock (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    newest INTEGER NOT NULL CHECK (newest >= 0),
    key    BLOB    NOT NULL CHECK (length(key) = 32)
) STRICT;
INSERT INTO change_clock (id, newest, key) VALUES (1, 0, randomblob(32));

-- NULL: none since this version.
ALTER TABLE tasks ADD COLUMN changed INTEGER CHECK (changed >= 1);
CREATE INDEX tasks_by_change ON tasks (changed) WHERE changed IS NOT NULL;
CREATE INDEX tasks_by_own_change ON tasks (user_id, changed) WHERE changed IS NOT NULL;

CREATE TRIGGER number_new_task AFTER INSERT ON tasks
BEGIN
    UPDATE change_clock SET newest = newest + 1;
    UPDATE tasks SET changed = (SELECT newest FROM change_clock) WHERE seq = NEW.seq;
END;

CREATE TRIGGER number_changed_task
    AFTER UPDATE OF state, reason, reason_code, not_before, updated_at, started_at, ended_at, files_at ON tasks
    WHEN (NEW.state, NEW.reason, NEW.reason_code, NEW.not_before, NEW.updated_at, NEW.started_at, NEW.ended_at,
          NEW.files_at)
         IS NOT (OLD.state, OLD.reason, OLD.reason_code, OLD.not_before, OLD.updated_at, OLD.started_at, OLD.ended_at,
                 OLD.files_at)
BEGIN
    UPDATE change_clock SET newest = newest + 1;
    UPDATE tasks SET changed = (SELECT newest FROM change_clock) WHERE seq = NEW.seq;
END;

-- A new one comes with a move of its task.
CREATE TRIGGER number_changed_attempt AFTER UPDATE OF state, stalled_since, stalled_why ON attempts
    WHEN (NEW.state, NEW.stalled_since, NEW.stalled_why) IS NOT (OLD.state, OLD.stalled_since, OLD.stalled_why)
BEGIN
    UPDATE change_clock SET newest = newest + 1;
    UPDATE tasks SET changed = (SELECT newest FROM change_clock) WHERE task_id = NEW.task_id;
END;
