-- name: task
SELECT tasks.id, tasks.tenant, tasks.kind, tasks.source, tasks.idempotency_key, tasks.fingerprint, tasks.submission,
       tasks.redactions, tasks.traceparent, tasks.run AS runs, tasks.received_at, tasks.result, runs.plan,
       coalesce($3::integer, tasks.run) AS run,
       (SELECT count(*) FROM events
        WHERE events.task = tasks.id AND events.run = coalesce($3::integer, tasks.run)) AS events
FROM tasks
LEFT JOIN runs ON runs.task = tasks.id AND runs.run = coalesce($3::integer, tasks.run)
WHERE tasks.id = $2 AND tasks.tenant = $1 AND coalesce($3::integer, tasks.run) <= tasks.run

-- name: finished
SELECT events.at, events.body
FROM events
JOIN tasks ON tasks.id = events.task
WHERE tasks.id = $2 AND tasks.tenant = $1 AND events.run = $3 AND events.body->>'event' = 'finished'
ORDER BY events.seq DESC LIMIT 1

-- name: steps
SELECT steps.*
FROM steps
JOIN tasks ON tasks.id = steps.task
WHERE tasks.id = $2 AND tasks.tenant = $1 AND steps.run = $3
ORDER BY steps.round, steps.sent_at, steps.step

-- name: attempts
SELECT attempts.*
FROM attempts
JOIN tasks ON tasks.id = attempts.task
WHERE tasks.id = $2 AND tasks.tenant = $1 AND attempts.run = $3
ORDER BY attempts.finished_at, attempts.step, attempts.round, attempts.attempt, attempts.delivery, attempts.outcome

-- name: model_calls
SELECT step, round, purpose, call, repair, provider, model, input_tokens, output_tokens, cache_read_tokens,
       cache_write_tokens, cost_usd, answered_at
FROM model_calls
WHERE tenant = $1 AND task = $2 AND run = $3
ORDER BY answered_at, step, round, purpose, call, repair
