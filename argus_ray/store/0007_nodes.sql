-- The nodes that an attempt was assigned, by Ray's node ids, the driver's first. Empty: one of a version that left the
-- choice to Ray.
ALTER TABLE attempts ADD COLUMN nodes TEXT NOT NULL DEFAULT '[]'
    CHECK (json_valid(nodes) AND json_type(nodes) = 'array');
