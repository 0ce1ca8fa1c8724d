-- name: list
SELECT id, tenant, task, reason, message, body, received_at, redriven_at, dropped_at
FROM dead_letters
WHERE tenant = ANY ($1::text[])
  AND ($2::text IS NULL OR reason = $2)
  AND ($3::text IS NULL OR task = $3)
  AND ($4::timestamptz IS NULL OR received_at >= $4)
  AND ($5::timestamptz IS NULL OR received_at < $5)
  AND ($6::boolean OR (redriven_at IS NULL AND dropped_at IS NULL))
  AND ($7::bigint IS NULL OR id < $7)
ORDER BY id DESC
LIMIT $8

-- name: one
SELECT id, tenant, task, reason, message, body, received_at, redriven_at, dropped_at, original
FROM dead_letters
WHERE tenant = ANY ($1::text[]) AND id = $2
