-- Version 1. Times are seconds since the Unix epoch (UTC). Each statement ends with a semicolon at a line's end.
-- The words of each state list are those of argus_ray/core/states.py; a test compares them.

-- The fence: who may write. One row, replaced by each writer when it opens the database.
CREATE TABLE writer (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    epoch     INTEGER NOT NULL CHECK (epoch >= 1),
    writer_id TEXT    NOT NULL CHECK (length(writer_id) = 32),
    opened_at REAL    NOT NULL
) STRICT;

CREATE TABLE users (
    user_id      TEXT PRIMARY KEY
                 CHECK (length(user_id) BETWEEN 1 AND 32 AND user_id NOT GLOB '*[^a-z0-9-]*'),
    display_name TEXT NOT NULL CHECK (length(display_name) <= 128),
    state        TEXT NOT NULL CHECK (state IN ('ACTIVE', 'DISABLED')),
    created_at   REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Of a token only the SHA-256 digest is here. The token itself is nowhere.
CREATE TABLE tokens (
    token_id     TEXT PRIMARY KEY CHECK (length(token_id) BETWEEN 1 AND 64),
    user_id      TEXT NOT NULL REFERENCES users (user_id),
    digest       TEXT NOT NULL UNIQUE CHECK (length(digest) = 64 AND digest NOT GLOB '*[^0-9a-f]*'),
    label        TEXT NOT NULL CHECK (length(label) <= 128),
    created_at   REAL NOT NULL,
    expires_at   REAL CHECK (expires_at > created_at),
    last_used_at REAL,
    revoked_at   REAL
) STRICT, WITHOUT ROWID;

CREATE INDEX tokens_by_user ON tokens (user_id, created_at);

CREATE TABLE tasks (
    -- The place in the line: the order of acceptance.
    seq             INTEGER PRIMARY KEY CHECK (seq >= 1),
    task_id         TEXT    NOT NULL UNIQUE CHECK (task_id GLOB 'argus-?*' AND task_id NOT GLOB '*[^a-z0-9-]*'),
    user_id         TEXT    NOT NULL REFERENCES users (user_id),
    workload        TEXT    NOT NULL CHECK (workload IN ('ppo', 'grpo', 'sft')),
    state           TEXT    NOT NULL CHECK (state IN ('QUEUED', 'PENDING_RESOURCES', 'SUBMITTING', 'SUBMITTED',
                                                      'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELED')),
    nnodes          INTEGER NOT NULL CHECK (nnodes >= 1),
    gpus_per_node   INTEGER NOT NULL CHECK (gpus_per_node >= 0),
    cpus_per_node   REAL    NOT NULL CHECK (cpus_per_node >= 0),
    extra_cpus      REAL    NOT NULL CHECK (extra_cpus >= 0),
    spec_yaml       TEXT    NOT NULL CHECK (length(CAST(spec_yaml AS BLOB)) <= 65536),
    idempotency_key TEXT    CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    created_at      REAL    NOT NULL,
    updated_at      REAL    NOT NULL,
    reason          TEXT,
    not_before      REAL,
    next_retry_at   REAL,
    overtaken_since   REAL,
    started_at      REAL,
    ended_at        REAL,
    losses          INTEGER NOT NULL DEFAULT 0 CHECK (losses >= 0),
    CONSTRAINT ended_at_iff_final
        CHECK ((ended_at IS NOT NULL) = (state IN ('SUCCEEDED', 'FAILED', 'CANCELED'))),
    CONSTRAINT waits_only_in_the_line
        CHECK (state IN ('QUEUED', 'PENDING_RESOURCES')
               OR (not_before IS NULL AND next_retry_at IS NULL AND overtaken_since IS NULL)),
    CONSTRAINT failed_has_a_reason CHECK (state NOT IN ('FAILED', 'PENDING_RESOURCES') OR reason IS NOT NULL)
) STRICT;

-- The line of all users.
CREATE INDEX tasks_in_line ON tasks (seq) WHERE state IN ('QUEUED', 'PENDING_RESOURCES');
CREATE INDEX tasks_by_state ON tasks (state, seq);
CREATE INDEX tasks_by_user ON tasks (user_id, state, seq);
CREATE UNIQUE INDEX tasks_by_key ON tasks (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE attempts (
    submission_id TEXT PRIMARY KEY,
    task_id       TEXT    NOT NULL REFERENCES tasks (task_id),
    number        INTEGER NOT NULL CHECK (number >= 1),
    state         TEXT    NOT NULL CHECK (state IN ('SUBMITTING', 'SUBMITTED', 'RUNNING', 'STOPPING', 'ENDED')),
    created_at    REAL    NOT NULL,
    job_root      TEXT    NOT NULL UNIQUE CHECK (job_root GLOB '/?*'),
    session       TEXT,
    ray_job_id    TEXT,
    node_id       TEXT,
    node_ip       TEXT,
    started_at    REAL,
    ended_at      REAL,
    outcome       TEXT CHECK (outcome IN ('SUCCEEDED', 'APPLICATION', 'INFRASTRUCTURE', 'INSUFFICIENT_RESOURCES',
                                          'CANCELED')),
    exit_code     INTEGER,
    reason        TEXT,
    command       TEXT    NOT NULL CHECK (json_valid(command) AND json_type(command) = 'array'),
    env           TEXT    NOT NULL CHECK (json_valid(env) AND json_type(env) = 'array'),
    UNIQUE (task_id, number),
    CONSTRAINT id_is_derived CHECK (submission_id = printf('%s--a%02d', task_id, number)),
    CONSTRAINT ended_at_iff_ended CHECK ((ended_at IS NOT NULL) = (state = 'ENDED')),
    CONSTRAINT outcome_iff_ended CHECK ((outcome IS NOT NULL) = (state = 'ENDED')),
    CONSTRAINT exit_code_only_ended CHECK (exit_code IS NULL OR state = 'ENDED'),
    CONSTRAINT running_has_started CHECK (state <> 'RUNNING' OR started_at IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- Two live attempts of one task would train into one another.
CREATE UNIQUE INDEX one_live_attempt ON attempts (task_id) WHERE state <> 'ENDED';

CREATE TABLE events (
    event_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id       TEXT NOT NULL REFERENCES tasks (task_id),
    at            REAL NOT NULL,
    -- move: the task changed its state. reason: why it waits is new. attempt: an attempt changed, its task did not.
    -- note: something worth telling.
    kind          TEXT NOT NULL CHECK (kind IN ('move', 'reason', 'attempt', 'note')),
    old_state     TEXT,
    new_state     TEXT,
    cause         TEXT,
    message       TEXT NOT NULL CHECK (length(message) >= 1),
    submission_id TEXT,
    CONSTRAINT a_move_has_a_cause
        CHECK ((kind = 'move') = (new_state IS NOT NULL) AND (kind = 'move') = (cause IS NOT NULL)),
    CONSTRAINT only_the_first_comes_from_nowhere
        CHECK (old_state IS NOT NULL OR kind <> 'move' OR cause = 'accepted'),
    CONSTRAINT a_state_is_left_by_a_move CHECK (old_state IS NULL OR kind = 'move')
) STRICT;

CREATE INDEX events_by_task ON events (task_id, event_id);

-- How many tasks of each user are in each state: kept by the triggers below, so that the limits of the line and the
-- readiness page need not count rows.
CREATE TABLE task_counts (
    state   TEXT    NOT NULL,
    user_id TEXT    NOT NULL REFERENCES users (user_id),
    n       INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (state, user_id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER count_new_task AFTER INSERT ON tasks
BEGIN
    INSERT INTO task_counts (state, user_id, n) VALUES (NEW.state, NEW.user_id, 1)
        ON CONFLICT (state, user_id) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER count_moved_task AFTER UPDATE OF state ON tasks WHEN OLD.state <> NEW.state
BEGIN
    UPDATE task_counts SET n = n - 1 WHERE state = OLD.state AND user_id = OLD.user_id;
    INSERT INTO task_counts (state, user_id, n) VALUES (NEW.state, NEW.user_id, 1)
        ON CONFLICT (state, user_id) DO UPDATE SET n = n + 1;
END;

-- The last walls: what must never change, whatever the code above believes.
CREATE TRIGGER final_is_final BEFORE UPDATE OF state ON tasks
    WHEN OLD.state IN ('SUCCEEDED', 'FAILED', 'CANCELED') AND NEW.state <> OLD.state
BEGIN
    SELECT RAISE(ABORT, 'a task that has ended does not move');
END;

CREATE TRIGGER ended_is_ended BEFORE UPDATE ON attempts WHEN OLD.state = 'ENDED'
BEGIN
    SELECT RAISE(ABORT, 'an attempt that has ended does not change');
END;

CREATE TRIGGER identity_of_a_task BEFORE UPDATE OF seq, task_id, user_id, spec_yaml, idempotency_key ON tasks
BEGIN
    SELECT RAISE(ABORT, 'a task keeps its place, its owner and its spec');
END;

CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are only added');
END;

CREATE TRIGGER events_are_not_removed BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are only added');
END;
