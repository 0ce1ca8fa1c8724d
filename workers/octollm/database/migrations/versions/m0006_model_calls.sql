-- Every answer of a model, written before it is used: a technical retry reads it here and pays nothing. Also the bill.
CREATE TABLE model_calls (
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    step text NOT NULL,
    -- 0 until a step may be asked of several members at once.
    swarm_member integer NOT NULL DEFAULT 0,
    round integer NOT NULL,
    purpose text NOT NULL,
    -- Rises when the arm asks again because of an answer.
    call integer NOT NULL,
    -- Rises when the model is told that its answer breaks the schema.
    repair integer NOT NULL,
    -- Of what was asked, without the model's name: see minds/provider.py.
    request_sha256 text NOT NULL,
    tenant text NOT NULL,
    arm text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    -- {"text": ..., "stop": ...}
    answer jsonb NOT NULL,
    -- The four add up; NULL: the server did not say.
    input_tokens bigint,
    output_tokens bigint,
    cache_read_tokens bigint,
    cache_write_tokens bigint,
    -- US dollars by the price file; NULL: not known for certain.
    cost_usd numeric,
    -- Who got the answer; a later reader changes neither.
    attempt integer NOT NULL,
    delivery integer NOT NULL,
    asked_at timestamptz NOT NULL,
    answered_at timestamptz NOT NULL,
    -- Which call of a process this row is from, so that a repeated write of the same answer is told from a second answer.
    answer_id uuid NOT NULL,
    -- Answers to the same question that came too late to count (two workers at once, one of them without its lease).
    -- They were paid for: the bill is cost_usd + surplus_cost_usd.
    surplus_calls integer NOT NULL DEFAULT 0,
    surplus_cost_usd numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (task, run, step, swarm_member, round, purpose, call, repair, request_sha256)
);

CREATE INDEX model_calls_by_tenant ON model_calls (tenant, answered_at DESC);
