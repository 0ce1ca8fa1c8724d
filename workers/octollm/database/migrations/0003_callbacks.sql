-- compatible-from: 0001
-- Outgoing callbacks: what is sent when a task has ended.

-- Written by the transaction that ends a run, so that nothing is lost and nothing is sent of a run that has not ended.
CREATE TABLE callbacks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    -- A name in callbacks.yaml, or the URL of the submission without its query.
    endpoint text NOT NULL,
    -- The URL of the submission; NULL: callbacks.yaml has it.
    url text,
    -- What is sent, the same in every attempt.
    body text NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    -- Number of attempts that have begun; fences late results of earlier ones.
    attempts integer NOT NULL DEFAULT 0,
    -- Attempts that have failed since the callback was stored or redelivered: the place in the schedule.
    failures integer NOT NULL DEFAULT 0,
    -- While an attempt runs: when it counts as lost and the next one may begin.
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- The last attempt that has ended.
    attempted_at timestamptz,
    outcome text,
    status integer,
    detail text,
    -- The beginning of the receiver's answer, without control characters and secrets.
    response text,
    UNIQUE (task, run, endpoint)
);

CREATE INDEX callbacks_due ON callbacks (next_attempt_at) WHERE state = 'pending';

CREATE INDEX callbacks_by_tenant ON callbacks (tenant, id);

CREATE INDEX callbacks_pending_by_endpoint ON callbacks (tenant, endpoint) WHERE state = 'pending';

-- Endpoints whose attempts have only failed since the last success, and disabled ones. Others have no row.
CREATE TABLE callback_endpoints (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    -- As in callbacks.endpoint.
    name text NOT NULL,
    failing_since timestamptz NOT NULL DEFAULT now(),
    failures integer NOT NULL DEFAULT 1,
    disabled_at timestamptz,
    detail text NOT NULL,
    UNIQUE (tenant, name)
);
