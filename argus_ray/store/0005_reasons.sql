-- Why an attempt failed as {"code", "line", "hint"}, and what a task's inputs left in doubt as
-- [{"field", "rule"}, ...].
ALTER TABLE attempts ADD COLUMN failure TEXT
    CHECK (failure IS NULL OR (state = 'ENDED' AND json_valid(failure) AND json_type(failure, '$.code') = 'text'));
ALTER TABLE tasks ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]'
    CHECK (json_valid(warnings) AND json_type(warnings) = 'array');
