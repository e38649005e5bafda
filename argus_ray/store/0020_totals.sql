-- What has happened since the database was made, for monitoring: counted within the transaction in which it happens, so no
-- restart loses or doubles anything, and nothing that is cleaned up later is missing. `label` and `label2` are words of
-- fixed lists, or a user.
CREATE TABLE totals (
    metric TEXT NOT NULL,
    label  TEXT NOT NULL DEFAULT '',
    label2 TEXT NOT NULL DEFAULT '',
    n      REAL NOT NULL DEFAULT 0 CHECK (n >= 0),
    PRIMARY KEY (metric, label, label2)
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

-- Each pair of fixed words has its row from the start, so that counting is one update. Tasks are counted from the first
-- one on, attempts from this version on.
INSERT INTO totals (metric, label)
    SELECT 'accepted', value FROM json_each('["sft", "ppo", "grpo", "export"]');
INSERT INTO totals (metric, label, label2)
    SELECT 'ended', workload.value, state.value
    FROM json_each('["sft", "ppo", "grpo", "export"]') AS workload, json_each('["SUCCEEDED", "FAILED", "CANCELED"]') AS state;
INSERT INTO totals (metric, label)
    SELECT 'attempts_ended', value
    FROM json_each('["SUCCEEDED", "APPLICATION", "INFRASTRUCTURE", "INSUFFICIENT_RESOURCES", "CANCELED"]');
INSERT INTO totals (metric) VALUES ('admissions'), ('overtakes');
INSERT INTO totals (metric, label)
    SELECT 'start_estimates', value FROM json_each('["inside", "early", "late", "none"]');
INSERT INTO totals (metric, label)
    SELECT 'refused', value FROM json_each('["missing", "invalid", "disabled", "forbidden"]');

INSERT INTO totals (metric, label, n)
    SELECT 'accepted', CASE WHEN export_of IS NULL THEN workload ELSE 'export' END AS kind, count(*) FROM tasks GROUP BY kind
    ON CONFLICT DO UPDATE SET n = excluded.n;
INSERT INTO totals (metric, label, label2, n)
    SELECT 'ended', CASE WHEN export_of IS NULL THEN workload ELSE 'export' END AS kind, state, count(*) FROM tasks
    WHERE ended_at IS NOT NULL GROUP BY kind, state
    ON CONFLICT DO UPDATE SET n = excluded.n;

CREATE TRIGGER total_of_accepted AFTER INSERT ON tasks
BEGIN
    UPDATE totals SET n = n + 1 WHERE metric = 'accepted' AND label2 = ''
        AND label = CASE WHEN NEW.export_of IS NULL THEN NEW.workload ELSE 'export' END;
END;

CREATE TRIGGER total_of_ended AFTER UPDATE OF state ON tasks
WHEN NEW.state <> OLD.state AND NEW.state IN ('SUCCEEDED', 'FAILED', 'CANCELED')
BEGIN
    UPDATE totals SET n = n + 1 WHERE metric = 'ended' AND label2 = NEW.state
        AND label = CASE WHEN NEW.export_of IS NULL THEN NEW.workload ELSE 'export' END;
END;

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
    UPDATE totals SET n = n + 1 WHERE metric = 'overtakes' AND label = '' AND label2 = '';
END;

CREATE TRIGGER total_of_admissions AFTER INSERT ON attempts
BEGIN
    UPDATE totals SET n = n + 1 WHERE metric = 'admissions' AND label = '' AND label2 = '';
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
    UPDATE totals SET n = n + 1 WHERE metric = 'attempts_ended' AND label = NEW.outcome AND label2 = '';
    INSERT INTO totals (metric, label, n)
        SELECT 'gpu_seconds', user_id, nnodes * gpus_per_node * max(0, NEW.ended_at - NEW.started_at) FROM tasks
        WHERE task_id = NEW.task_id AND NEW.started_at IS NOT NULL AND gpus_per_node > 0
        ON CONFLICT DO UPDATE SET n = n + excluded.n;
END;
