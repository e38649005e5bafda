-- A user's task is found by owner and id in one search: the row of a task that is another user's is not even read, so
-- the answer takes as long as for no task.
CREATE UNIQUE INDEX tasks_of_owner ON tasks (user_id, task_id);
