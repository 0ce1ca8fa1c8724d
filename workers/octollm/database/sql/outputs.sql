-- name: store_output
-- An output that is stored already may belong to a task of long ago. It counts as new, so that no purge deletes it
-- before the step that refers to it is stored.
INSERT INTO outputs (tenant, sha256, body) VALUES ($1, $2, $3)
ON CONFLICT (tenant, sha256) DO UPDATE SET created_at = now() WHERE outputs.created_at < now() - interval '1 hour'

-- name: load_outputs
SELECT tenant, sha256, body
FROM outputs
JOIN jsonb_to_recordset($1::jsonb) AS wanted (tenant text, sha256 text) USING (tenant, sha256)
