-- name: claim
-- Begins the next attempt of callbacks that are due, and returns them. An attempt that does not end within $6 seconds counts
-- as lost. $2: how many attempts of each endpoint run in this process, by tenant, blank, endpoint; $3: the same of each
-- tenant. At most $4 of an endpoint and $5 of a tenant run at the same time.
WITH candidates AS (
    SELECT id, tenant, endpoint, next_attempt_at
    FROM callbacks
    WHERE state = 'pending' AND next_attempt_at <= now()
      AND coalesce(($2::jsonb->>(tenant || ' ' || endpoint))::integer, 0) < $4::integer
      AND coalesce(($3::jsonb->>tenant)::integer, 0) < $5::integer
      AND NOT EXISTS (
          SELECT FROM callback_endpoints
          WHERE callback_endpoints.tenant = callbacks.tenant AND callback_endpoints.name = callbacks.endpoint
            AND disabled_at IS NOT NULL
      )
    ORDER BY next_attempt_at LIMIT $1::integer * 10
), placed AS (
    SELECT id,
           row_number() OVER (PARTITION BY tenant, endpoint ORDER BY next_attempt_at)
           + coalesce(($2::jsonb->>(tenant || ' ' || endpoint))::integer, 0) AS of_endpoint,
           row_number() OVER (PARTITION BY tenant ORDER BY next_attempt_at)
           + coalesce(($3::jsonb->>tenant)::integer, 0) AS of_tenant
    FROM candidates
), locked AS (
    SELECT id FROM callbacks
    WHERE id IN (SELECT id FROM placed WHERE of_endpoint <= $4::integer AND of_tenant <= $5::integer)
      AND state = 'pending' AND next_attempt_at <= now()
    ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE callbacks
SET attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => $6)
FROM locked
WHERE callbacks.id = locked.id
RETURNING callbacks.id, tenant, task, run, endpoint, url, body, attempts, failures, extract(epoch FROM now())::bigint AS now_s

-- name: record
-- Stores how attempt $2 ended, unless it counted as lost and another one has begun. $4: seconds until the next attempt;
-- NULL: there is none.
UPDATE callbacks
SET state = $3, next_attempt_at = CASE WHEN $4::float8 IS NULL THEN now() ELSE now() + make_interval(secs => $4) END,
    failures = failures + (CASE WHEN $3 = 'delivered' THEN 0 ELSE 1 END), attempted_at = now(), outcome = $5, status = $6, detail = $7, response = $8
WHERE id = $1 AND attempts = $2 AND state = 'pending'

-- name: record_success
DELETE FROM callback_endpoints WHERE tenant = $1 AND name = $2 AND disabled_at IS NULL

-- name: record_failure
-- Disables the endpoint if $4, or if its attempts have only failed for more than $5 days. Returns whether this disabled it.
INSERT INTO callback_endpoints AS known (tenant, name, detail, disabled_at)
VALUES ($1, $2, $3, CASE WHEN $4 THEN now() END)
ON CONFLICT (tenant, name) DO UPDATE
SET failures = known.failures + 1, detail = excluded.detail,
    disabled_at = coalesce(
        known.disabled_at, CASE WHEN $4 OR known.failing_since < now() - make_interval(days => $5) THEN now() END
    )
RETURNING coalesce(disabled_at = now(), false) AS disabled

-- name: backlog
-- Numbers for the metrics. Callbacks of disabled endpoints wait for a person and are left out.
SELECT count(*) AS pending,
       coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest_s,
       (SELECT count(*) FROM callback_endpoints WHERE disabled_at IS NOT NULL) AS disabled
FROM callbacks
WHERE state = 'pending' AND NOT EXISTS (
    SELECT FROM callback_endpoints
    WHERE callback_endpoints.tenant = callbacks.tenant AND callback_endpoints.name = callbacks.endpoint
      AND disabled_at IS NOT NULL
)
