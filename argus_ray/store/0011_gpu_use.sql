-- What the ended attempts of each user have used, in GPU-seconds that count less the older they are (core/shares.py).
-- `at`: as of when. One row a user, so that nobody reads the past.
CREATE TABLE gpu_use (
    user_id TEXT PRIMARY KEY REFERENCES users (user_id),
    gpu_s   REAL NOT NULL CHECK (gpu_s >= 0),
    at      REAL NOT NULL
) STRICT, WITHOUT ROWID;
