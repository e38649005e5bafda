-- Tasks are found and counted by what they are shown as, when they were accepted and how their id ends. Cost grows
-- neither with the tasks of others nor with those that a filter leaves out.

-- What the task is shown as: an export is one, whatever the task whose checkpoint it is. Stored, since an index of a
-- column that is computed is never a covering one.
ALTER TABLE tasks ADD COLUMN kind TEXT NOT NULL DEFAULT '';
UPDATE tasks SET kind = CASE WHEN export_of IS NULL THEN workload ELSE 'export' END;

CREATE INDEX tasks_of_user_by_kind ON tasks (user_id, kind, state, created_at);
CREATE INDEX tasks_by_kind ON tasks (kind, state, created_at);
-- By the random part of the id.
CREATE INDEX tasks_by_tail ON tasks (substr(task_id, -4), user_id);

-- Beside `task_counts`, whose few rows each submission reads.
CREATE TABLE kind_counts (
    user_id TEXT    NOT NULL REFERENCES users (user_id),
    kind    TEXT    NOT NULL,
    state   TEXT    NOT NULL,
    n       INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (user_id, kind, state)
) STRICT, WITHOUT ROWID;
INSERT INTO kind_counts (user_id, kind, state, n)
    SELECT user_id, kind, state, count(*) FROM tasks GROUP BY user_id, kind, state;

CREATE TRIGGER count_new_kind AFTER INSERT ON tasks
BEGIN
    INSERT INTO kind_counts (user_id, kind, state, n) VALUES (NEW.user_id, NEW.kind, NEW.state, 1)
        ON CONFLICT (user_id, kind, state) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER count_moved_kind AFTER UPDATE OF state ON tasks WHEN OLD.state <> NEW.state
BEGIN
    UPDATE kind_counts SET n = n - 1 WHERE user_id = OLD.user_id AND kind = OLD.kind AND state = OLD.state;
    INSERT INTO kind_counts (user_id, kind, state, n) VALUES (NEW.user_id, NEW.kind, NEW.state, 1)
        ON CONFLICT (user_id, kind, state) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER kind_is_derived BEFORE INSERT ON tasks
    WHEN NEW.kind NOT IN ('', CASE WHEN NEW.export_of IS NULL THEN NEW.workload ELSE 'export' END)
BEGIN
    SELECT RAISE(ABORT, 'the kind of a task follows from what it is');
END;

CREATE TRIGGER kind_of_a_task BEFORE UPDATE OF workload, kind ON tasks
    WHEN NEW.workload <> OLD.workload OR NEW.kind <> OLD.kind
BEGIN
    SELECT RAISE(ABORT, 'a task keeps its workload');
END;

-- Of an attempt's nodes what they were when it was admitted: a JSON list of {node_id, hostname, ip, gpus}, in the order
-- of `nodes`. NULL: one of an earlier version.
ALTER TABLE attempts ADD COLUMN placement TEXT
    CHECK (placement IS NULL OR (json_valid(placement) AND json_type(placement) = 'array'));
