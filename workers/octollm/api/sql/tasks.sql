-- Every query filters by the tenant, even if an earlier query has found the task.

-- name: list
SELECT id, tenant, kind, state, reason, detail, source, priority, submission->>'goal' AS goal, run,
       received_at, updated_at, deadline_at
FROM tasks
WHERE tenant = $1
  AND ($2::text IS NULL OR state = $2)
  AND ($3::text IS NULL OR kind = $3)
  AND ($4::text IS NULL OR source = $4)
  AND ($5::text IS NULL OR priority = $5)
  AND ($6::timestamptz IS NULL OR received_at >= $6)
  AND ($7::timestamptz IS NULL OR received_at < $7)
  AND ($8::text IS NULL OR strpos(lower(submission->>'goal'), lower($8)) > 0)
  AND ($9::timestamptz IS NULL OR (received_at, id) < ($9, $10::text))
ORDER BY received_at DESC, id DESC
LIMIT $11

-- name: status
-- One statement, so that the state and the open steps belong to one snapshot.
SELECT id, tenant, kind, state, run, version, reason, detail, received_at, updated_at, result,
       submission->'metadata' AS metadata,
       CASE WHEN $3 AND submission ? 'goal' THEN submission END AS submission,
       CASE WHEN state IN ('accepted', 'running') THEN (
           SELECT jsonb_agg(jsonb_build_object('step', step, 'arm', arm, 'sent_at', sent_at) ORDER BY sent_at, step)
           FROM (
               SELECT step, arm, sent_at FROM steps
               WHERE steps.task = tasks.id AND steps.run = tasks.run AND steps.state = 'sent'
               ORDER BY sent_at, step LIMIT 200
           ) AS sent
       ) END AS open
FROM tasks
WHERE id = $2 AND tenant = $1

-- name: exists
SELECT run FROM tasks WHERE id = $2 AND tenant = $1

-- name: runs
-- The last event of an earlier run says how it ended.
SELECT number AS run, runs.plan,
       (SELECT min(events.at) FROM events WHERE events.task = tasks.id AND events.run = number) AS started_at,
       finished.at AS finished_at,
       coalesce(finished.body->>'state', tasks.state) AS state,
       finished.body->>'reason' AS reason,
       finished.body->>'detail' AS detail
FROM tasks
CROSS JOIN generate_series($3::integer + 1, tasks.run) AS number
LEFT JOIN runs ON runs.task = tasks.id AND runs.run = number
LEFT JOIN LATERAL (
    SELECT events.at, events.body FROM events
    WHERE events.task = tasks.id AND events.run = number AND events.body->>'event' = 'finished'
    ORDER BY events.seq DESC LIMIT 1
) AS finished ON true
WHERE tasks.id = $2 AND tasks.tenant = $1
ORDER BY number
LIMIT $4

-- name: steps
-- The input is the plan's: what its references find is in the submission and in the outputs.
SELECT steps.*, planned.step->'input' AS input
FROM steps
JOIN tasks ON tasks.id = steps.task
LEFT JOIN runs ON runs.task = steps.task AND runs.run = steps.run
LEFT JOIN LATERAL (
    SELECT one.value AS step FROM jsonb_array_elements(runs.plan->'steps') AS one (value)
    WHERE one.value->>'name' = steps.step
    LIMIT 1
) AS planned ON true
WHERE tasks.id = $2 AND tasks.tenant = $1
  AND ($3::integer IS NULL OR steps.run = $3)
  AND ($4::integer IS NULL OR (steps.run, steps.round, steps.step) > ($4, $5::integer, $6::text))
ORDER BY steps.run, steps.round, steps.step
LIMIT $7

-- name: attempts
SELECT attempts.*
FROM attempts
JOIN tasks ON tasks.id = attempts.task
WHERE tasks.id = $2 AND tasks.tenant = $1
  AND ($3::integer IS NULL OR attempts.run = $3)
  AND ($4::integer IS NULL
       OR (attempts.run, attempts.finished_at, attempts.step, attempts.round, attempts.attempt, attempts.delivery,
           attempts.outcome)
        > ($4, $5::timestamptz, $6::text, $7::integer, $8::integer, $9::integer, $10::text))
ORDER BY attempts.run, attempts.finished_at, attempts.step, attempts.round, attempts.attempt, attempts.delivery,
         attempts.outcome
LIMIT $11

-- name: events
SELECT events.run, events.seq, events.body
FROM events
JOIN tasks ON tasks.id = events.task
WHERE tasks.id = $2 AND tasks.tenant = $1 AND (events.run, events.seq) > ($3::integer, $4::integer)
ORDER BY events.run, events.seq
LIMIT $5
