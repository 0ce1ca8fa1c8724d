ALTER TABLE tasks ADD COLUMN not_before timestamptz;

CREATE INDEX tasks_put_off ON tasks (not_before) WHERE state = 'accepted' AND not_before IS NOT NULL;
