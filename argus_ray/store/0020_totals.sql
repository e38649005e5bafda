-- What has happened since the database was made, for monitoring: counted within the transaction in which it happens, so no
-- restart loses or doubles anything, and nothing that is cleaned up later is missing. `label`: a word of a fixed list, or a
-- user; empty: the metric has none.
CREATE TABLE totals (
    metric TEXT NOT NULL,
    label  TEXT NOT NULL DEFAULT '',
    n      REAL NOT NULL DEFAULT 0 CHECK (n >= 0),
    PRIMARY KEY (metric, label)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER totals_never_fall BEFORE UPDATE OF n ON totals WHEN NEW.n < OLD.n
BEGIN
    SELECT RAISE(ABORT, 'a total never falls');
END;
CREATE TRIGGER totals_are_not_removed BEFORE DELETE ON totals
BEGIN
    SELECT RAISE(ABORT, 'a total never falls');
END;

-- From acceptance to the first admission. Each bucket holds its own.
CREATE TABLE queue_waits (
    le      REAL    NOT NULL PRIMARY KEY,
    n       INTEGER NOT NULL DEFAULT 0 CHECK (n >= 0),
    seconds REAL    NOT NULL DEFAULT 0 CHECK (seconds >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO queue_waits (le) VALUES (1), (5), (15), (60), (300), (900), (1800), (3600), (7200), (14400), (28800), (86400),
    (172800), (345600), (604800), (9e999);

-- Each fixed word has its row from the start, so that counting is one update. How many tasks there were is in
-- `kind_counts`, since none is ever removed.
INSERT INTO totals (metric, label)
    SELECT 'attempts_ended', value
    FROM json_each('["SUCCEEDED", "APPLICATION", "INFRASTRUCTURE", "INSUFFICIENT_RESOURCES", "CANCELED"]');
INSERT INTO totals (metric) VALUES ('admissions'), ('overtakes');
INSERT INTO totals (metric, label)
    SELECT 'refused', value FROM json_each('["missing", "invalid", "disabled", "forbidden"]');

-- Its last attempt says why; a task that waited was refused for its inputs.
CREATE TRIGGER total_of_failures AFTER UPDATE OF state ON tasks
WHEN NEW.state = 'FAILED' AND OLD.state <> 'FAILED'
BEGIN
    INSERT INTO totals (metric, label, n) VALUES ('failures', CASE
        WHEN OLD.state IN ('QUEUED', 'PENDING_RESOURCES') THEN 'invalid_inputs'
        ELSE coalesce((SELECT json_extract(failure, '$.code') FROM attempts WHERE task_id = NEW.task_id
                       ORDER BY number DESC LIMIT 1), 'unknown') END, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER total_of_overtakes AFTER UPDATE OF overtaken_since ON tasks
WHEN OLD.overtaken_since IS NULL AND NEW.overtaken_since IS NOT NULL
BEGIN
    UPDATE totals SET n = n + 1 WHERE metric = 'overtakes' AND label = '';
END;

CREATE TRIGGER total_of_admissions AFTER INSERT ON attempts
BEGIN
    UPDATE totals SET n = n + 1 WHERE metric = 'admissions' AND label = '';
END;

-- A clock that was set back makes no wait shorter than none.
CREATE TRIGGER wait_in_the_queue AFTER INSERT ON attempts WHEN NEW.number = 1
BEGIN
    UPDATE queue_waits SET n = n + 1,
        seconds = seconds + (SELECT max(0, NEW.created_at - created_at) FROM tasks WHERE task_id = NEW.task_id)
    WHERE le = (SELECT min(le) FROM queue_waits
                WHERE le >= (SELECT NEW.created_at - created_at FROM tasks WHERE task_id = NEW.task_id));
END;

CREATE TRIGGER total_of_attempts AFTER UPDATE OF state ON attempts WHEN NEW.state = 'ENDED' AND OLD.state <> 'ENDED'
BEGIN
    UPDATE totals SET n = n + 1 WHERE metric = 'attempts_ended' AND label = NEW.outcome;
    INSERT INTO totals (metric, label, n)
        SELECT 'gpu_seconds', user_id, nnodes * gpus_per_node * max(0, NEW.ended_at - NEW.started_at) FROM tasks
        WHERE task_id = NEW.task_id AND NEW.started_at IS NOT NULL AND gpus_per_node > 0
        ON CONFLICT DO UPDATE SET n = n + excluded.n;
END;
