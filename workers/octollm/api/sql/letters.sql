-- name: list
SELECT id, tenant, task, reason, message, body, received_at
FROM dead_letters
WHERE tenant = $1
  AND ($2::text IS NULL OR reason = $2)
  AND ($3::text IS NULL OR task = $3)
  AND ($4::timestamptz IS NULL OR received_at >= $4)
  AND ($5::timestamptz IS NULL OR received_at < $5)
  AND ($6::bigint IS NULL OR id < $6)
ORDER BY id DESC
LIMIT $7

-- name: one
SELECT id, tenant, task, reason, message, body, received_at, original
FROM dead_letters
WHERE tenant = $1 AND id = $2
