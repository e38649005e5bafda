-- When tasks that wait may start: what was told, whether it was right, and the runs that it is foretold by.

-- Of each task that was ever told anything: its newest estimate, and the first range of its present or last wait.
CREATE TABLE start_estimates (
    task_id        TEXT PRIMARY KEY REFERENCES tasks (task_id),
    at             REAL NOT NULL,
    earliest       REAL,
    latest         REAL,
    basis          TEXT,
    -- Why there is no range.
    unknown        TEXT,
    first_at       REAL,
    first_earliest REAL,
    first_latest   REAL,
    first_basis    TEXT,
    -- It has started, and this came of the first range.
    verdict        TEXT CHECK (verdict IN ('inside', 'early', 'late', 'none')),
    CHECK ((unknown IS NULL) = (earliest IS NOT NULL)),
    CHECK ((earliest IS NULL) = (latest IS NULL) AND (earliest IS NULL) = (basis IS NULL)),
    CHECK ((first_at IS NULL) = (first_earliest IS NULL) AND (first_at IS NULL) = (first_latest IS NULL)
           AND (first_at IS NULL) = (first_basis IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE estimate_counts (
    user_id TEXT NOT NULL REFERENCES users (user_id),
    verdict TEXT NOT NULL CHECK (verdict IN ('inside', 'early', 'late', 'none')),
    n       INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (user_id, verdict)
) STRICT, WITHOUT ROWID;

-- The newest verdicts of each user about a range that was told: so many that the newest of all are among them.
CREATE TABLE estimate_verdicts (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL REFERENCES users (user_id),
    verdict TEXT NOT NULL CHECK (verdict IN ('inside', 'early', 'late'))
) STRICT;
CREATE INDEX verdicts_of_user ON estimate_verdicts (user_id, id);

-- Runs that are over, the newest ones of all: how long a step takes, and how far runs come.
CREATE TABLE runs_seen (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    submission_id TEXT NOT NULL UNIQUE,
    user_id       TEXT NOT NULL,
    workload      TEXT NOT NULL,
    model         TEXT NOT NULL,
    nnodes        INTEGER NOT NULL,
    gpus_per_node INTEGER NOT NULL,
    recipe        TEXT NOT NULL,
    steps         INTEGER,
    seconds       REAL NOT NULL CHECK (seconds >= 0),
    done          REAL NOT NULL CHECK (done BETWEEN 0 AND 1),
    ratio         REAL CHECK (ratio > 0)
) STRICT;
CREATE INDEX runs_of_kind ON runs_seen (user_id, workload, model, nnodes, gpus_per_node, id) WHERE done = 1;
CREATE INDEX runs_of_workload ON runs_seen (workload, id);
