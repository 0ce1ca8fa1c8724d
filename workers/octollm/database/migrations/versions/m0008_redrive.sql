ALTER TABLE dead_letters
    -- Its task has begun another run.
    ADD COLUMN redriven_at timestamptz,
    -- Somebody has seen it and wants nothing done.
    ADD COLUMN dropped_at timestamptz;

CREATE INDEX dead_letters_open ON dead_letters (tenant, id) WHERE redriven_at IS NULL AND dropped_at IS NULL;
