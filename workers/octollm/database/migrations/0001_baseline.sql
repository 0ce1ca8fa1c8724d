-- compatible-from: 0001
-- Baseline. Timestamps are timestamptz, data from producers and arms is jsonb, sizes are in bytes, durations in ms.

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
    -- Incremented by every change. The status in Redis is only overwritten by a higher version.
    version bigint NOT NULL,
    -- Number of the newest event within the run.
    seq integer NOT NULL,
    received_at timestamptz NOT NULL,
    deadline_at timestamptz,
    -- The orchestrator starts the task no earlier.
    not_before timestamptz,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    result jsonb,
    -- Outbox flag: set by the transaction that ends a task when no stream entry caused the end (a deadline), cleared once
    -- the status is published. No entry would be redelivered for such an end, so this row is its only record.
    status_pending boolean,
    -- What the task writes to memory: title, text, collection, attributes, entities, relationships.
    memory jsonb,
    -- Set by the memory worker as the last step of indexing the task.
    indexed_at timestamptz,
    -- When task.result.v1 was last published, and how often after the first time.
    result_sent_at timestamptz,
    result_send_count integer,
    -- Retention: the task is to be deleted; memory deletes its own data first and records it here.
    purge_requested_at timestamptz,
    memory_deleted_at timestamptz
);

-- Pages are ordered by (received_at, id): many tasks may arrive within one millisecond.
CREATE INDEX tasks_by_arrival ON tasks (tenant, received_at, id);

-- For states that are rare among many tasks. Other filters scan.
CREATE INDEX tasks_by_state ON tasks (tenant, state, received_at, id);

CREATE INDEX tasks_status_pending ON tasks (id) WHERE status_pending;

CREATE INDEX tasks_scheduled ON tasks (not_before) WHERE state = 'accepted' AND not_before IS NOT NULL;

CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL AND purge_requested_at IS NULL;

CREATE INDEX tasks_not_indexed ON tasks (result_sent_at) WHERE result_sent_at IS NOT NULL AND indexed_at IS NULL;

CREATE INDEX tasks_to_purge ON tasks (purge_requested_at) WHERE purge_requested_at IS NOT NULL;

CREATE INDEX tasks_by_deadline ON tasks (deadline_at) WHERE state IN ('accepted', 'running') AND deadline_at IS NOT NULL;

CREATE TABLE runs (
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    -- The plan at the start of the run. Later changes of the recipe do not affect it.
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
    -- The event that sent the step, so that its redelivery sends the same step again and nothing else.
    sent_by text NOT NULL,
    sent_at timestamptz NOT NULL,
    output jsonb,
    output_sha256 text,
    -- SHA-256 of the output's JSON with sorted keys, for steps whose successor was published by the arm (direct hand-off).
    digest text,
    -- Results of a directly handed-off step (step.done.v1) that arrived before the step they build on was committed.
    early_results text[],
    -- When the reconciler last found the step's message in Redis. NULL since the step was sent.
    last_seen_at timestamptz,
    error text,
    worker text,
    delivery integer,
    duration_ms bigint,
    PRIMARY KEY (task, run, step, round)
);

CREATE INDEX steps_in_flight ON steps ((coalesce(last_seen_at, sent_at))) WHERE state = 'sent';

CREATE INDEX steps_by_output ON steps (output_sha256) WHERE output_sha256 IS NOT NULL;

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
    error_class text CHECK (error_class IN ('transient', 'permanent', 'needs_person')),
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

-- Outputs that are too large for a message, addressed by their content.
CREATE TABLE outputs (
    tenant text NOT NULL,
    sha256 text NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, sha256)
);

CREATE INDEX outputs_by_age ON outputs (created_at);

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Entry id on the stream `dead`; makes the insert idempotent.
    message_id text NOT NULL UNIQUE,
    tenant text NOT NULL,
    task text,
    reason text NOT NULL,
    message text NOT NULL,
    body jsonb NOT NULL,
    original bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- The task has started another run.
    redriven_at timestamptz,
    -- An operator has discarded it.
    dropped_at timestamptz
);

CREATE INDEX dead_letters_by_tenant ON dead_letters (tenant, id);

CREATE INDEX dead_letters_open ON dead_letters (tenant, id) WHERE redriven_at IS NULL AND dropped_at IS NULL;

CREATE INDEX dead_letters_by_task ON dead_letters (task) WHERE task IS NOT NULL;

CREATE TABLE idempotency (
    tenant text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    task text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

-- Requests to cancel a task that was unknown when they arrived; checked when the task is taken in.
CREATE TABLE cancel_requests (
    task text NOT NULL,
    -- The requester. Only a request by the task's own tenant counts.
    tenant text NOT NULL,
    detail text,
    requested_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task, tenant)
);

CREATE INDEX cancel_requests_by_age ON cancel_requests (received_at);

-- Replaces punctuation with spaces and splits camelCase. Tables and queries must use the same function.
CREATE FUNCTION plain_words(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT RETURN
    regexp_replace(regexp_replace($1, '([a-z0-9])([A-Z])', '\1 \2', 'g'), '[!-/:-@\[-`{-~]+', ' ', 'g');

-- Vectors are stored in a vector store under the ids of `passages`; they can be rebuilt from these tables.

CREATE TABLE documents (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    collection text NOT NULL,
    name text NOT NULL,
    media text NOT NULL CHECK (media IN ('markdown', 'text', 'code')),
    text text NOT NULL,
    -- Digest of all inputs of its passages; an unchanged document is not processed again.
    sha256 text NOT NULL,
    attributes jsonb NOT NULL,
    -- NULL: keyword search only.
    embedder text,
    -- pending: passages are stored, vectors may be missing; deleting: vectors may still exist.
    state text NOT NULL CHECK (state IN ('pending', 'ready', 'deleting')),
    tokens bigint NOT NULL,
    -- The task that produced it, if any.
    task text,
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, collection, name)
);

CREATE INDEX documents_by_attributes ON documents USING gin (attributes jsonb_path_ops);

CREATE INDEX documents_by_task ON documents (task) WHERE task IS NOT NULL;

CREATE INDEX documents_unfinished ON documents (changed_at) WHERE state <> 'ready';

CREATE TABLE passages (
    -- Derived from tenant, collection, document, position and text, so that writes are idempotent.
    id uuid PRIMARY KEY,
    document uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    tenant text NOT NULL,
    collection text NOT NULL,
    ordinal integer NOT NULL,
    -- Characters from 0, the end exclusive; lines from 1.
    start_at integer NOT NULL,
    end_at integer NOT NULL,
    first_line integer NOT NULL,
    last_line integer NOT NULL,
    heading text NOT NULL,
    text text NOT NULL,
    -- Identifiers, paths, versions and non-ASCII words in lower case; a dictionary would stem or drop them.
    names text[] NOT NULL,
    -- 'english' stems prose (retries matches retry). Names are added unstemmed, because 'english' drops words such as not
    -- and before that occur in names.
    words tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('english', plain_words(heading)), 'B')
        || to_tsvector('english', plain_words(text))
        || array_to_tsvector(names)
    ) STORED,
    UNIQUE (document, ordinal)
);

-- Ranking reads `words` of many passages but not `text`, so `text` is stored out of line instead.
ALTER TABLE passages ALTER COLUMN words SET STORAGE MAIN;

CREATE INDEX passages_by_words ON passages USING gin (words);

CREATE INDEX passages_by_collection ON passages (tenant, collection);

CREATE TABLE artifacts (
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    tenant text NOT NULL,
    title text NOT NULL,
    text text NOT NULL,
    answer jsonb,
    attributes jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    words tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('english', plain_words(title)), 'A')
        || to_tsvector('english', plain_words(left(text, 100000)))
    ) STORED,
    PRIMARY KEY (task, run)
);

CREATE INDEX artifacts_by_tenant ON artifacts (tenant, created_at DESC);

CREATE INDEX artifacts_by_attributes ON artifacts USING gin (attributes jsonb_path_ops);

CREATE INDEX artifacts_by_words ON artifacts USING gin (words);

CREATE TABLE entities (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    type text NOT NULL,
    name text NOT NULL,
    attributes jsonb NOT NULL,
    -- Entity names are not language-specific.
    words tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('simple', plain_words(type || ' ' || name))) STORED,
    UNIQUE (tenant, type, name)
);

CREATE INDEX entities_by_attributes ON entities USING gin (attributes jsonb_path_ops);

CREATE INDEX entities_by_words ON entities USING gin (words);

CREATE TABLE relationships (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    from_entity uuid NOT NULL REFERENCES entities ON DELETE CASCADE,
    type text NOT NULL,
    to_entity uuid NOT NULL REFERENCES entities ON DELETE CASCADE,
    attributes jsonb NOT NULL,
    UNIQUE (tenant, from_entity, type, to_entity)
);

CREATE INDEX relationships_by_origin ON relationships (from_entity);

CREATE INDEX relationships_by_target ON relationships (to_entity);

CREATE INDEX relationships_by_attributes ON relationships USING gin (attributes jsonb_path_ops);

-- Which tasks state an entity or relationship. It is deleted with the last task that states it.
CREATE TABLE entity_sources (
    entity uuid NOT NULL REFERENCES entities ON DELETE CASCADE,
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    PRIMARY KEY (task, entity)
);

CREATE INDEX entity_sources_by_entity ON entity_sources (entity);

CREATE TABLE relationship_sources (
    relationship uuid NOT NULL REFERENCES relationships ON DELETE CASCADE,
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    PRIMARY KEY (task, relationship)
);

CREATE INDEX relationship_sources_by_relationship ON relationship_sources (relationship);

-- Journal and ledger of model calls. An answer is stored before it is used, so that a technical retry does not pay again.
CREATE TABLE model_calls (
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    step text NOT NULL,
    -- 0 until a step may be asked of several members at once.
    swarm_member integer NOT NULL DEFAULT 0,
    round integer NOT NULL,
    purpose text NOT NULL,
    -- Incremented when the arm asks again because of an answer.
    call integer NOT NULL,
    -- Incremented when the model is asked to correct an answer that violates the schema.
    repair integer NOT NULL,
    -- Digest of the request without the model's name, see models/provider.py.
    request_sha256 text NOT NULL,
    tenant text NOT NULL,
    arm text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    -- {"text": ..., "stop": ...}
    answer jsonb NOT NULL,
    -- Disjoint counts; NULL: not reported by the server.
    input_tokens bigint,
    output_tokens bigint,
    cache_read_tokens bigint,
    cache_write_tokens bigint,
    -- US dollars by the price file; NULL: unknown.
    cost_usd numeric,
    -- The attempt and delivery that paid; unchanged by later readers.
    attempt integer NOT NULL,
    delivery integer NOT NULL,
    asked_at timestamptz NOT NULL,
    answered_at timestamptz NOT NULL,
    -- Identifies the call, to distinguish a repeated write of one answer from a second answer.
    answer_id uuid NOT NULL,
    -- Paid answers to the same request that lost the race (two workers, one without a valid lease).
    -- The total cost is cost_usd + surplus_cost_usd.
    surplus_calls integer NOT NULL DEFAULT 0,
    surplus_cost_usd numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (task, run, step, swarm_member, round, purpose, call, repair, request_sha256)
);

CREATE INDEX model_calls_by_tenant ON model_calls (tenant, answered_at DESC);

-- The last due time that was submitted, per schedule.
CREATE TABLE schedules (
    name text PRIMARY KEY,
    cron text NOT NULL,
    zone text NOT NULL,
    due timestamptz,
    submitted_at timestamptz
);
