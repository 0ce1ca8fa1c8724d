-- name: insert
-- $6: when it expires; else $7: how long it is valid; both null: for ever.
INSERT INTO api_keys (id, tenant, name, hash, scopes, expires_at, replaces)
VALUES ($1, $2, $3, $4, $5::text[], coalesce($6::timestamptz, now() + $7::interval), $8)
RETURNING id, tenant, name, scopes, created_at, expires_at, revoked_at, last_used_at, replaces, now()

-- name: list
SELECT id, tenant, name, scopes, created_at, expires_at, revoked_at, last_used_at, replaces, now()
FROM api_keys WHERE $1::text IS NULL OR tenant = $1 ORDER BY created_at DESC, id LIMIT $2

-- name: lock
SELECT id, tenant, name, scopes, created_at, expires_at, revoked_at, last_used_at, replaces, now()
FROM api_keys WHERE id = $1 FOR UPDATE

-- name: revoke
UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL
RETURNING id, tenant, name, scopes, created_at, expires_at, revoked_at, last_used_at, replaces, now()

-- name: shorten
-- The key expires after $2, or earlier if it would anyway.
UPDATE api_keys SET expires_at = least(expires_at, now() + $2::interval) WHERE id = $1

-- name: successor
SELECT id FROM api_keys WHERE replaces = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) LIMIT 1

-- name: state
SELECT number, clock_timestamp() AS now FROM api_key_changes

-- name: snapshot
-- The keys that are valid now and the number of this state, in one statement and so of one moment. One row without an id if
-- there are none.
SELECT changes.number, clock_timestamp() AS now, keys.id, keys.tenant, keys.hash, keys.scopes, keys.expires_at
FROM api_key_changes AS changes
LEFT JOIN api_keys AS keys ON keys.revoked_at IS NULL AND (keys.expires_at IS NULL OR keys.expires_at > now())
ORDER BY keys.id

-- name: exceed
-- Redis knows a higher number than this table: the database was restored from a backup. What it holds is valid again.
UPDATE api_key_changes SET number = $1::bigint + 1 WHERE number < $1::bigint

-- name: set_last_used
UPDATE api_keys AS keys SET last_used_at = used.at
FROM unnest($1::text[], $2::timestamptz[]) AS used (id, at)
WHERE keys.id = used.id AND (keys.last_used_at IS NULL OR keys.last_used_at < used.at)

-- name: existing
SELECT id FROM api_keys WHERE id = ANY ($1::text[])
