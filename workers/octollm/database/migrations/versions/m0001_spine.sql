-- Times are timestamptz; what a producer or an arm gave is jsonb; sizes are bytes, durations ms.

CREATE TABLE tasks (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    kind text,
    state text NOT NULL CHECK (state IN ('accepted', 'running', 'succeeded', 'failed', 'rejected', 'cancelled', 'expired')),
    reason text,
    detail text,
    source text NOT NULL,
    priority text NOT NULL CHECK (priority IN ('high', 'normal', 'low')),
    idempotency_key text NOT NULL,
    fingerprint text NOT NULL,
    submission jsonb NOT NULL,
    redactions jsonb NOT NULL,
    traceparent text NOT NULL,
    run integer NOT NULL,
    round integer NOT NULL,
    -- Rises with every change; the status in Redis is only written over a lower one.
    version bigint NOT NULL,
    -- The newest event's number within the run.
    seq integer NOT NULL,
    received_at timestamptz NOT NULL,
    deadline_at timestamptz,
    updated_at timestamptz NOT NULL,
    result jsonb
);

CREATE INDEX tasks_by_tenant ON tasks (tenant, received_at DESC);

CREATE INDEX tasks_by_deadline ON tasks (deadline_at) WHERE state IN ('accepted', 'running') AND deadline_at IS NOT NULL;

CREATE TABLE runs (
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    -- The plan as it was when the run began; a changed recipe never changes it.
    plan jsonb NOT NULL,
    PRIMARY KEY (task, run)
);

CREATE TABLE steps (
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    step text NOT NULL,
    round integer NOT NULL,
    arm text NOT NULL,
    state text NOT NULL CHECK (state IN ('sent', 'succeeded', 'failed', 'dead', 'cancelled')),
    attempt integer NOT NULL,
    failures integer NOT NULL,
    -- The event that sent it, so that the same event, met again, sends it again and nothing else.
    sent_by text NOT NULL,
    sent_at timestamptz NOT NULL,
    output jsonb,
    output_sha256 text,
    error text,
    worker text,
    delivery integer,
    duration_ms bigint,
    PRIMARY KEY (task, run, step, round)
);

CREATE INDEX steps_in_flight ON steps (sent_at) WHERE state = 'sent';

CREATE TABLE attempts (
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    step text NOT NULL,
    round integer NOT NULL,
    attempt integer NOT NULL,
    delivery integer NOT NULL,
    outcome text NOT NULL,
    worker text NOT NULL,
    duration_ms bigint NOT NULL,
    finished_at timestamptz NOT NULL,
    error_code text,
    error_message text,
    PRIMARY KEY (task, run, step, round, attempt, delivery, outcome)
);

CREATE TABLE events (
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    seq integer NOT NULL,
    at timestamptz NOT NULL,
    body jsonb NOT NULL,
    PRIMARY KEY (task, run, seq)
);

-- Outputs that are too large for a message, by what they contain.
CREATE TABLE outputs (
    tenant text NOT NULL,
    sha256 text NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, sha256)
);

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Where the letter itself lay on `dead`: written twice it is one.
    letter text NOT NULL UNIQUE,
    tenant text NOT NULL,
    task text,
    reason text NOT NULL,
    message text NOT NULL,
    body jsonb NOT NULL,
    original bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX dead_letters_by_task ON dead_letters (task) WHERE task IS NOT NULL;

CREATE TABLE idempotency (
    tenant text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    task text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);
