-- Who did what to whom, when, from where, by which token. Rows are only added; old ones may go by one door alone.
CREATE TABLE audit (
    audit_id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Milliseconds, so that a place in a list is whole numbers.
    at       INTEGER NOT NULL,
    -- NULL: a token that nobody knows.
    actor    TEXT CHECK (length(actor) BETWEEN 1 AND 64),
    role     TEXT    NOT NULL CHECK (role IN ('admin', 'internal', 'user')),
    token_id TEXT CHECK (length(token_id) <= 64),
    address  TEXT CHECK (length(address) <= 64),
    action   TEXT    NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
    target   TEXT CHECK (length(target) <= 256),
    -- Whose the target is.
    user_id  TEXT CHECK (length(user_id) <= 128),
    result   TEXT    NOT NULL CHECK (length(result) BETWEEN 1 AND 64),
    detail   TEXT CHECK (detail IS NULL OR (length(detail) <= 4096 AND json_valid(detail)))
) STRICT;

-- Each list is merged from one run of an index for each action. Most acts are about what is one's own, and are found by
-- who did them.
CREATE INDEX audit_by_action ON audit (action, at);
CREATE INDEX audit_by_actor ON audit (actor, action, at);
CREATE INDEX audit_by_user ON audit (user_id, action, at) WHERE user_id IS NOT actor;

-- The door: entries from before this time may be removed. It never goes back.
CREATE TABLE audit_cut (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    before INTEGER NOT NULL
) STRICT;
INSERT INTO audit_cut (id, before) VALUES (1, 0);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
    WHEN coalesce(OLD.at >= (SELECT before FROM audit_cut), 1)
BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
-- INSERT OR REPLACE removes without a trigger.
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
    WHEN NEW.audit_id IN (SELECT audit_id FROM audit)
BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
CREATE TRIGGER the_cut_never_goes_back BEFORE UPDATE ON audit_cut WHEN NEW.before < OLD.before
BEGIN
    SELECT RAISE(ABORT, 'the cut of the audit never goes back');
END;
CREATE TRIGGER the_cut_is_not_removed BEFORE DELETE ON audit_cut
BEGIN
    SELECT RAISE(ABORT, 'the cut of the audit stays');
END;
CREATE TRIGGER the_cut_is_one BEFORE INSERT ON audit_cut
BEGIN
    SELECT RAISE(ABORT, 'the cut of the audit stays');
END;

-- What was used and what came of it, by user, day (UTC, days since the epoch) and workload. GPU time in milliseconds:
-- whole numbers add up to the same in any order. It is counted when an attempt ends, so that nobody reads the past.
CREATE TABLE usage (
    user_id   TEXT    NOT NULL REFERENCES users (user_id),
    day       INTEGER NOT NULL,
    workload  TEXT    NOT NULL,
    gpu_ms    INTEGER NOT NULL DEFAULT 0 CHECK (gpu_ms >= 0),
    -- Accepted on that day; ended on that day.
    tasks     INTEGER NOT NULL DEFAULT 0 CHECK (tasks >= 0),
    succeeded INTEGER NOT NULL DEFAULT 0 CHECK (succeeded >= 0),
    failed    INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
    canceled  INTEGER NOT NULL DEFAULT 0 CHECK (canceled >= 0),
    PRIMARY KEY (user_id, day, workload)
) STRICT, WITHOUT ROWID;

-- Of all days together.
CREATE TABLE usage_totals (
    user_id  TEXT    NOT NULL REFERENCES users (user_id),
    workload TEXT    NOT NULL,
    gpu_ms   INTEGER NOT NULL CHECK (gpu_ms >= 0),
    PRIMARY KEY (user_id, workload)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER total_of_new_usage AFTER INSERT ON usage WHEN NEW.gpu_ms > 0
BEGIN
    INSERT INTO usage_totals (user_id, workload, gpu_ms) VALUES (NEW.user_id, NEW.workload, NEW.gpu_ms)
        ON CONFLICT (user_id, workload) DO UPDATE SET gpu_ms = gpu_ms + excluded.gpu_ms;
END;
CREATE TRIGGER total_of_more_usage AFTER UPDATE OF gpu_ms ON usage WHEN NEW.gpu_ms <> OLD.gpu_ms
BEGIN
    INSERT INTO usage_totals (user_id, workload, gpu_ms) VALUES (NEW.user_id, NEW.workload, NEW.gpu_ms - OLD.gpu_ms)
        ON CONFLICT (user_id, workload) DO UPDATE SET gpu_ms = gpu_ms + excluded.gpu_ms;
END;
CREATE TRIGGER usage_is_not_removed BEFORE DELETE ON usage
BEGIN
    SELECT RAISE(ABORT, 'usage is only added to');
END;

-- From when an attempt counts: its start, moved with the clock when that is set while it lives.
ALTER TABLE attempts ADD COLUMN counts_from REAL;
UPDATE attempts SET counts_from = started_at WHERE state <> 'ENDED';

-- What there is already.
INSERT INTO usage (user_id, day, workload, tasks)
    SELECT user_id, CAST(round(created_at * 1000) AS INTEGER) / 86400000,
           CASE WHEN export_of IS NULL THEN workload ELSE 'export' END, count(*)
    FROM tasks GROUP BY 1, 2, 3;
INSERT INTO usage (user_id, day, workload, succeeded, failed, canceled)
    SELECT user_id, CAST(round(ended_at * 1000) AS INTEGER) / 86400000,
           CASE WHEN export_of IS NULL THEN workload ELSE 'export' END,
           sum(state = 'SUCCEEDED'), sum(state = 'FAILED'), sum(state = 'CANCELED')
    FROM tasks WHERE ended_at IS NOT NULL GROUP BY 1, 2, 3
    ON CONFLICT (user_id, day, workload) DO UPDATE
        SET succeeded = excluded.succeeded, failed = excluded.failed, canceled = excluded.canceled;
WITH RECURSIVE
    runs AS (
        SELECT user_id, CASE WHEN export_of IS NULL THEN workload ELSE 'export' END AS workload,
               nnodes * gpus_per_node AS gpus, CAST(round(attempts.started_at * 1000) AS INTEGER) AS start,
               CAST(round(attempts.ended_at * 1000) AS INTEGER) AS stop
        FROM attempts JOIN tasks USING (task_id)
        WHERE attempts.state = 'ENDED' AND attempts.started_at IS NOT NULL
    ),
    parts AS (
        SELECT user_id, workload, gpus, start, stop, max(start / 86400000, (stop - 1) / 86400000 - 399) AS day
        FROM runs WHERE gpus > 0 AND stop > start
        UNION ALL
        SELECT user_id, workload, gpus, (day + 1) * 86400000, stop, day + 1
        FROM parts WHERE (day + 1) * 86400000 < stop
    )
INSERT INTO usage (user_id, day, workload, gpu_ms)
    SELECT user_id, day, workload, sum(gpus * (min(stop, (day + 1) * 86400000) - start)) FROM parts WHERE true GROUP BY 1, 2, 3
    ON CONFLICT (user_id, day, workload) DO UPDATE SET gpu_ms = gpu_ms + excluded.gpu_ms;

CREATE TRIGGER usage_of_new_task AFTER INSERT ON tasks
BEGIN
    INSERT INTO usage (user_id, day, workload, tasks)
        VALUES (NEW.user_id, CAST(round(NEW.created_at * 1000) AS INTEGER) / 86400000,
                CASE WHEN NEW.export_of IS NULL THEN NEW.workload ELSE 'export' END, 1)
        ON CONFLICT (user_id, day, workload) DO UPDATE SET tasks = tasks + 1;
END;
CREATE TRIGGER usage_of_ended_task AFTER UPDATE OF state ON tasks WHEN NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL
BEGIN
    INSERT INTO usage (user_id, day, workload, succeeded, failed, canceled)
        VALUES (NEW.user_id, CAST(round(NEW.ended_at * 1000) AS INTEGER) / 86400000,
                CASE WHEN NEW.export_of IS NULL THEN NEW.workload ELSE 'export' END,
                NEW.state = 'SUCCEEDED', NEW.state = 'FAILED', NEW.state = 'CANCELED')
        ON CONFLICT (user_id, day, workload) DO UPDATE
            SET succeeded = succeeded + excluded.succeeded, failed = failed + excluded.failed,
                canceled = canceled + excluded.canceled;
END;
