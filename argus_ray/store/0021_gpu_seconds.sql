-- The total of GPU time as usage has it: from `counts_from`, which follows the clock when that is set. From `started_at` a
-- clock that was set by a day made a day of GPU time, for ever.
DROP TRIGGER total_of_attempts;
CREATE TRIGGER total_of_attempts AFTER UPDATE OF state ON attempts WHEN NEW.state = 'ENDED' AND OLD.state <> 'ENDED'
BEGIN
    UPDATE totals SET n = n + 1 WHERE metric = 'attempts_ended' AND label = NEW.outcome;
    INSERT INTO totals (metric, label, n)
        SELECT 'gpu_seconds', user_id,
               nnodes * gpus_per_node * max(0, NEW.ended_at - coalesce(NEW.counts_from, NEW.started_at)) FROM tasks
        WHERE task_id = NEW.task_id AND NEW.started_at IS NOT NULL AND gpus_per_node > 0
        ON CONFLICT DO UPDATE SET n = n + excluded.n;
END;
