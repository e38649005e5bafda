-- Up to which event each webhook of the settings has been told. The events themselves are the queue.
CREATE TABLE webhooks (
    name         TEXT PRIMARY KEY,
    delivered_to INTEGER NOT NULL CHECK (delivered_to >= 0),
    updated_at   REAL NOT NULL
) STRICT, WITHOUT ROWID;
