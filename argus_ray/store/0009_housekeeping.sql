-- What housekeeping does next is found by its due time, user by user, whatever lies behind. `look_after`: of a task at its
-- JOB_ROOT or LEAVING when it is due; of one in the TRASH when its time there began, moved on after a failed try.
DROP INDEX tasks_by_files;
DROP INDEX tasks_at_home_by_end;
DROP INDEX tasks_that_resume;
CREATE INDEX tasks_by_look ON tasks (user_id, files_at, look_after)
    WHERE ended_at IS NOT NULL AND files_at <> 'DELETED';
CREATE INDEX tasks_at_home_by_end ON tasks (user_id, ended_at) WHERE files_at = 'JOB_ROOT' AND ended_at IS NOT NULL;
CREATE INDEX tasks_that_resume ON tasks (seq)
    WHERE resume_roots IS NOT NULL AND state IN ('QUEUED', 'PENDING_RESOURCES');
UPDATE tasks SET look_after = trashed_at WHERE files_at = 'TRASH' AND look_after < trashed_at;

-- What an attempt has left is measured soon, and before what was measured already.
CREATE TRIGGER look_at_what_has_ended AFTER UPDATE OF state ON attempts WHEN NEW.state = 'ENDED'
BEGIN
    UPDATE tasks SET look_after = 0 WHERE task_id = NEW.task_id;
END;

-- How many checkpoints stay. After a change by which more go, the tasks up to `up_to` are still to be made due. One row.
CREATE TABLE checkpoint_rule (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    keep  INTEGER NOT NULL CHECK (keep >= 0),
    up_to INTEGER NOT NULL CHECK (up_to >= 0)
) STRICT;
