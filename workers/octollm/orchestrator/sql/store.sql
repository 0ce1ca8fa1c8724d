-- name: claim_keys
-- Claims keys that are free or have expired. One row per key.
INSERT INTO idempotency AS existing (tenant, key, fingerprint, task, expires_at)
SELECT tenant, key, fingerprint, task, now() + make_interval(secs => $2)
FROM jsonb_to_recordset($1::jsonb) AS new (tenant text, key text, fingerprint text, task text)
ORDER BY tenant, key
ON CONFLICT (tenant, key) DO UPDATE
SET fingerprint = excluded.fingerprint, task = excluded.task, expires_at = excluded.expires_at
WHERE existing.expires_at < now()

-- name: delete_expired_keys
DELETE FROM idempotency
WHERE (tenant, key) IN (
    SELECT tenant, key FROM idempotency WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
)

-- name: key_holders
SELECT tenant, key, task, clock_timestamp() AS now
FROM idempotency
JOIN jsonb_to_recordset($1::jsonb) AS wanted (tenant text, key text) USING (tenant, key)

-- name: lock_tasks
-- In id order, so that two orchestrators never deadlock. `now` of the last row is read when every row is locked.
WITH locked AS MATERIALIZED (
    SELECT tasks.*, runs.plan
    FROM tasks
    LEFT JOIN runs ON runs.task = tasks.id AND runs.run = tasks.run
    WHERE tasks.id = ANY ($1::text[])
    ORDER BY tasks.id
    FOR UPDATE OF tasks
)
SELECT *, clock_timestamp() AS now FROM locked

-- name: lock_versions
-- In the same order, and with the same `now`.
WITH locked AS MATERIALIZED (
    SELECT id, run, version, updated_at FROM tasks WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE
)
SELECT *, clock_timestamp() AS now FROM locked

-- name: now
SELECT clock_timestamp()

-- name: steps_of
SELECT steps.*, outputs.body AS stored
FROM steps
JOIN tasks ON tasks.id = steps.task AND tasks.run = steps.run
LEFT JOIN outputs ON outputs.tenant = tasks.tenant AND outputs.sha256 = steps.output_sha256
WHERE steps.task = ANY ($1::text[])

-- name: insert_tasks
-- Returns the ids that were new. Fewer than given: another orchestrator stored some at the same time.
INSERT INTO tasks
SELECT * FROM jsonb_populate_recordset(NULL::tasks, $1::jsonb) ORDER BY id
ON CONFLICT DO NOTHING
RETURNING id

-- name: original_of
-- The submission of a task whose message could not be parsed, from its dead letter.
SELECT dead_letters.original, tasks.traceparent
FROM tasks
JOIN dead_letters ON dead_letters.task = tasks.id AND dead_letters.tenant = tasks.tenant
WHERE tasks.id = $1 AND tasks.tenant = $2 AND tasks.submission = '{}' AND tasks.state = 'failed'
  AND dead_letters.body->>'type' = 'task.submitted.v1'
ORDER BY dead_letters.id LIMIT 1

-- name: restore_task
UPDATE tasks
SET kind = new.kind, source = new.source, priority = new.priority, idempotency_key = new.idempotency_key,
    fingerprint = new.fingerprint, submission = new.submission, redactions = new.redactions,
    received_at = new.received_at
FROM jsonb_populate_recordset(NULL::tasks, $1::jsonb) AS new
WHERE tasks.id = new.id

-- name: update_tasks
UPDATE tasks
SET state = new.state, reason = new.reason, detail = new.detail, run = new.run, round = new.round,
    version = new.version, seq = new.seq, updated_at = new.updated_at, result = new.result,
    memory = new.memory, finished_at = new.finished_at, result_sent_at = new.result_sent_at,
    deadline_at = new.deadline_at, not_before = new.not_before,
    -- These belong to the run that ended: a new run is neither indexed nor to be deleted.
    indexed_at = CASE WHEN new.run = tasks.run THEN tasks.indexed_at END,
    result_send_count = CASE WHEN new.run = tasks.run THEN tasks.result_send_count END,
    purge_requested_at = CASE WHEN new.run = tasks.run THEN tasks.purge_requested_at END,
    memory_deleted_at = CASE WHEN new.run = tasks.run THEN tasks.memory_deleted_at END
FROM jsonb_populate_recordset(NULL::tasks, $1::jsonb) AS new
WHERE tasks.id = new.id

-- name: mark_redriven
-- Another run has started. A dead letter that arrives later knows its run, see insert_dead_letter.
UPDATE dead_letters SET redriven_at = now()
FROM tasks
WHERE tasks.id = dead_letters.task AND tasks.tenant = dead_letters.tenant AND tasks.id = ANY ($1::text[])
  AND dead_letters.redriven_at IS NULL AND dead_letters.dropped_at IS NULL

-- name: put_artifacts
-- Of runs that another run replaces. Memory may have written them already.
INSERT INTO artifacts (task, run, tenant, title, text, answer, attributes, created_at)
SELECT task, run, tenant, title, '', answer, '{}', created_at
FROM jsonb_to_recordset($1::jsonb) AS new (task text, run integer, tenant text, title text, answer jsonb,
                                           created_at timestamptz)
ON CONFLICT DO NOTHING

-- name: put_runs
-- A plan changes once, when the planner arm has answered.
INSERT INTO runs SELECT * FROM jsonb_populate_recordset(NULL::runs, $1::jsonb)
ON CONFLICT (task, run) DO UPDATE SET plan = excluded.plan

-- name: put_steps
INSERT INTO steps SELECT * FROM jsonb_populate_recordset(NULL::steps, $1::jsonb)
ON CONFLICT (task, run, step, round) DO UPDATE
SET state = excluded.state, attempt = excluded.attempt, failures = excluded.failures, sent_at = excluded.sent_at,
    sent_by = excluded.sent_by, digest = excluded.digest, early_results = excluded.early_results, last_seen_at = NULL,
    output = excluded.output, output_sha256 = excluded.output_sha256, error = excluded.error,
    worker = excluded.worker, delivery = excluded.delivery, duration_ms = excluded.duration_ms

-- name: insert_attempts
INSERT INTO attempts SELECT * FROM jsonb_populate_recordset(NULL::attempts, $1::jsonb) ON CONFLICT DO NOTHING

-- name: insert_events
INSERT INTO events SELECT * FROM jsonb_populate_recordset(NULL::events, $1::jsonb) ON CONFLICT DO NOTHING

-- name: deadlines
-- The earliest deadlines, and in how many seconds each passes, for those of the next seconds. Negative: it has passed.
SELECT id, extract(epoch FROM deadline_at - clock_timestamp())::float8 AS due_in
FROM tasks
WHERE state IN ('accepted', 'running') AND deadline_at < now() + make_interval(secs => $2)
ORDER BY deadline_at LIMIT $1

-- name: starts
-- As `deadlines`, for tasks that are to start.
SELECT id, run, extract(epoch FROM not_before - clock_timestamp())::float8 AS due_in
FROM tasks
WHERE state = 'accepted' AND not_before < now() + make_interval(secs => $2)
ORDER BY not_before LIMIT $1

-- name: steps_of_run
-- Every step and round that a run may have had in flight, also those that an arm has sent itself.
SELECT step->>'name' AS step, round
FROM runs
CROSS JOIN jsonb_array_elements(runs.plan->'steps') AS step
CROSS JOIN generate_series(0, (SELECT coalesce(max(round), 0) FROM steps WHERE task = $1 AND run = $2)) AS round
WHERE runs.task = $1 AND runs.run = $2

-- name: status_pending
SELECT id FROM tasks WHERE status_pending LIMIT $1

-- name: set_status_pending
UPDATE tasks SET status_pending = $2 WHERE id = ANY ($1::text[])

-- name: long_in_flight
-- Steps in flight for longer than any lease explains, oldest first. Steps with early results wait for the step before
-- them, which is checked itself.
SELECT steps.task, steps.run, steps.step, steps.round, steps.arm, steps.attempt, tasks.priority
FROM steps
JOIN tasks ON tasks.id = steps.task AND tasks.run = steps.run
WHERE steps.state = 'sent' AND steps.early_results IS NULL
  AND coalesce(steps.last_seen_at, steps.sent_at) < now() - make_interval(secs => $1)
  AND tasks.state IN ('accepted', 'running')
ORDER BY coalesce(steps.last_seen_at, steps.sent_at) LIMIT $2

-- name: set_last_seen
UPDATE steps SET last_seen_at = now()
FROM jsonb_to_recordset($1::jsonb) AS seen (task text, step text, round integer)
WHERE steps.task = seen.task AND steps.step = seen.step AND steps.round = seen.round AND steps.state = 'sent'

-- name: insert_cancel_requests
INSERT INTO cancel_requests (task, tenant, detail, requested_at)
SELECT task, tenant, detail, requested_at
FROM jsonb_to_recordset($1::jsonb) AS new (task text, tenant text, detail text, requested_at timestamptz)
ORDER BY task, tenant
ON CONFLICT DO NOTHING

-- name: cancel_requests
SELECT task, tenant, detail FROM cancel_requests WHERE task = ANY ($1::text[])

-- name: overlooked_cancel_requests
-- The request and its task were stored by two transactions that did not see each other.
SELECT tasks.id, tasks.tenant, cancel_requests.detail
FROM cancel_requests
JOIN tasks ON tasks.id = cancel_requests.task AND tasks.tenant = cancel_requests.tenant
WHERE tasks.state IN ('accepted', 'running')
LIMIT $1

-- name: delete_old_cancel_requests
DELETE FROM cancel_requests WHERE received_at < now() - make_interval(days => $1)

-- name: insert_dead_letter
-- If another run has started since, the dead letter counts as redriven.
INSERT INTO dead_letters (message_id, tenant, task, reason, message, body, original, redriven_at)
VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7, (SELECT now() FROM tasks WHERE id = $3 AND tenant = $2 AND run > $8))
ON CONFLICT (message_id) DO NOTHING

-- name: drop_dead_letter
UPDATE dead_letters SET dropped_at = now() WHERE id = $1 AND tenant = ANY ($2::text[]) AND dropped_at IS NULL

-- name: poison_task
-- Fixed SQL instead of `decide`, which may be the code that fails on the task. $4: the run, NULL for the newest.
UPDATE tasks
SET state = 'failed', reason = 'poison', detail = $2, version = version + 1, seq = seq + 1, updated_at = now(),
    finished_at = now(), result_sent_at = now(),
    result = jsonb_build_object(
        'task', id, 'run', run, 'tenant', tenant, 'state', 'failed', 'reason', 'poison', 'detail', $2::text,
        'answer', NULL, 'steps', '[]'::jsonb, 'mode', 'deterministic', 'redactions', redactions, 'finished_at', $3::text
    ) || CASE WHEN kind IS NULL THEN '{}'::jsonb ELSE jsonb_build_object('kind', kind) END
WHERE id = $1 AND run = coalesce($4, run) AND state IN ('accepted', 'running')
RETURNING *

-- name: poison_unknown_task
-- The message that could not be processed is all that is known of this task.
INSERT INTO tasks (id, tenant, state, reason, detail, source, priority, idempotency_key, fingerprint, submission,
                   redactions, traceparent, run, round, version, seq, received_at, updated_at, finished_at,
                   result_sent_at, result)
VALUES ($1, $2, 'failed', 'poison', $3, 'unknown', 'normal', $1, '', '{}', '{}', $4, 1, 0, 1, 1, now(), now(), now(),
        now(),
        jsonb_build_object(
            'task', $1::text, 'run', 1, 'tenant', $2::text, 'state', 'failed', 'reason', 'poison', 'detail', $3::text,
            'answer', NULL, 'steps', '[]'::jsonb, 'mode', 'deterministic', 'redactions', '{}'::jsonb,
            'finished_at', $5::text))
ON CONFLICT DO NOTHING
RETURNING *

-- name: poisoned_task
SELECT * FROM tasks WHERE id = $1 AND run = $2 AND reason = 'poison'

-- name: cancel_steps
-- For a task that was ended without `decide`.
UPDATE steps SET state = 'cancelled', early_results = NULL WHERE task = $1 AND run = $2 AND state = 'sent'

-- name: insert_callbacks
INSERT INTO callbacks (tenant, task, run, endpoint, url, body)
SELECT tenant, task, run, endpoint, url, body
FROM jsonb_to_recordset($1::jsonb)
    AS new (tenant text, task text, run integer, endpoint text, url text, body text)
ON CONFLICT DO NOTHING
