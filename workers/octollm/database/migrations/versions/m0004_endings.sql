ALTER TABLE tasks
    ADD COLUMN finished_at timestamptz,
    -- What memory is to keep: title, text, collection, attributes, entities, relationships.
    ADD COLUMN remember jsonb,
    -- Set by the memory worker, last of all it does for a task.
    ADD COLUMN remembered_at timestamptz,
    -- When task.result.v1 was sent last, and how often since the first time.
    ADD COLUMN result_sent_at timestamptz,
    ADD COLUMN result_sends integer,
    -- The task is to be deleted with all it left. Memory forgets it first and says so.
    ADD COLUMN purge_since timestamptz,
    ADD COLUMN forgotten_at timestamptz;

UPDATE tasks SET finished_at = updated_at, result_sent_at = updated_at WHERE result IS NOT NULL;

CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL AND purge_since IS NULL;

CREATE INDEX tasks_unremembered ON tasks (result_sent_at) WHERE result_sent_at IS NOT NULL AND remembered_at IS NULL;

CREATE INDEX tasks_to_purge ON tasks (purge_since) WHERE purge_since IS NOT NULL;

-- When the sweeper last found the step's message where it belongs. Null since the step was sent.
ALTER TABLE steps ADD COLUMN looked_at timestamptz;

DROP INDEX steps_in_flight;

CREATE INDEX steps_in_flight ON steps ((coalesce(looked_at, sent_at))) WHERE state = 'sent';

CREATE INDEX steps_by_output ON steps (output_sha256) WHERE output_sha256 IS NOT NULL;

CREATE INDEX outputs_by_age ON outputs (created_at);

-- Requests to cancel a task that was not known when they came; looked at when it is taken in.
CREATE TABLE cancel_requests (
    task text NOT NULL,
    -- Who asked. Only the owner's request counts, and who the owner is comes with the task.
    tenant text NOT NULL,
    detail text,
    requested_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task, tenant)
);

CREATE INDEX cancel_requests_by_age ON cancel_requests (received_at);
