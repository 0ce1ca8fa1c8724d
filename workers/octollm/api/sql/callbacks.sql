-- Every query filters by the tenant.

-- name: list
SELECT id, tenant, task, run, endpoint, state, attempts, created_at, next_attempt_at, attempted_at, outcome, status, detail
FROM callbacks
WHERE tenant = $1
  AND ($2::text IS NULL OR task = $2)
  AND ($3::text IS NULL OR state = $3)
  AND ($4::text IS NULL OR endpoint = $4)
  AND ($5::bigint IS NULL OR id < $5)
ORDER BY id DESC
LIMIT $6

-- name: of_run
SELECT id, tenant, task, run, endpoint, state, attempts, created_at, next_attempt_at, attempted_at, outcome, status, detail
FROM callbacks
WHERE tenant = $1 AND task = $2 AND run = $3
ORDER BY id

-- name: one
SELECT id, tenant, task, run, endpoint, state, attempts, created_at, next_attempt_at, attempted_at, outcome, status, detail,
       url, body, response
FROM callbacks
WHERE id = $2 AND tenant = $1

-- name: redeliver
-- The schedule begins again. What is pending is sent now; it stays pending while its endpoint is disabled.
UPDATE callbacks SET state = 'pending', failures = 0, next_attempt_at = now()
WHERE id = $2 AND tenant = $1
RETURNING task

-- name: endpoints
SELECT id, tenant, name, failing_since, failures, disabled_at, detail,
       (SELECT count(*) FROM callbacks
        WHERE callbacks.tenant = callback_endpoints.tenant AND endpoint = name AND state = 'pending') AS pending
FROM callback_endpoints
WHERE tenant = $1 AND ($2::bigint IS NULL OR id < $2)
ORDER BY id DESC
LIMIT $3

-- name: enable
DELETE FROM callback_endpoints WHERE id = $2 AND tenant = $1 RETURNING name
