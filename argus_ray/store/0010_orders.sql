-- What operators have ordered about the pool. One row a machine, by its hostname or its address; the newest order wins,
-- and one that was cleared stays, for whoever holds something of its own against the machine.
CREATE TABLE cordons (
    machine    TEXT    NOT NULL PRIMARY KEY CHECK (length(machine) >= 1),
    ordered_by TEXT    NOT NULL CHECK (length(ordered_by) >= 1),
    since      REAL    NOT NULL,
    reason     TEXT    NOT NULL,
    drain      INTEGER NOT NULL CHECK (drain IN (0, 1)),
    deadline   REAL    CHECK (deadline IS NULL OR drain = 1),
    cleared_at REAL
) STRICT, WITHOUT ROWID;

-- One row. `version` rises with each order; an admission that was decided before the newest one is not made.
CREATE TABLE pool_orders (
    id                 INTEGER PRIMARY KEY CHECK (id = 1),
    version            INTEGER NOT NULL CHECK (version >= 0),
    maintenance_by     TEXT CHECK ((maintenance_by IS NULL) = (maintenance_since IS NULL)),
    maintenance_since  REAL,
    maintenance_reason TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO pool_orders (id, version) VALUES (1, 0);

CREATE TRIGGER orders_never_go_back BEFORE UPDATE ON pool_orders
WHEN NEW.version <= OLD.version
BEGIN
    SELECT RAISE(ABORT, 'an order makes a new version');
END;
CREATE TRIGGER orders_are_not_removed BEFORE DELETE ON pool_orders
BEGIN
    SELECT RAISE(ABORT, 'the row of orders stays');
END;
