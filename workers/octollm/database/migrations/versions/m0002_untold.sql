-- Set in the transaction that ends a task by the clock, cleared once its status is published. Such an end follows from no
-- entry that would be delivered again, so this row is what remembers it.
ALTER TABLE tasks ADD COLUMN untold boolean;

CREATE INDEX tasks_untold ON tasks (id) WHERE untold;
