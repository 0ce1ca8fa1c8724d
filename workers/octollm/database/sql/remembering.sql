-- name: hold
-- Until the end of the transaction nobody else remembers or forgets this task. No row lock: the orchestrator must not
-- have to wait for memory.
SELECT pg_advisory_xact_lock(hashtextextended($1, 3))

-- name: finished
SELECT id, tenant, run, kind, submission, remember, result, finished_at
FROM tasks
WHERE id = $1 AND run = $2 AND result IS NOT NULL AND remembered_at IS NULL AND purge_since IS NULL

-- name: remembered
UPDATE tasks SET remembered_at = now() WHERE id = $1 AND run = $2

-- name: to_forget
WITH marked AS MATERIALIZED (
    SELECT id, tenant FROM tasks
    WHERE purge_since IS NOT NULL AND forgotten_at IS NULL
    ORDER BY purge_since LIMIT $1
)
SELECT id, tenant FROM marked WHERE pg_try_advisory_xact_lock(hashtextextended(id, 3))

-- name: forgotten
UPDATE tasks SET forgotten_at = now() WHERE id = ANY ($1::text[])
