-- name: finished
-- Locks the tasks in the same order as the orchestrator. Tasks marked for the purge are not indexed.
SELECT id, tenant, run, state, left(submission ->> 'goal', 500) AS goal, memory, indexed_at IS NOT NULL AS indexed
FROM tasks WHERE id = ANY ($1::text[]) AND purge_requested_at IS NULL
ORDER BY id FOR NO KEY UPDATE

-- name: set_indexed
UPDATE tasks SET indexed_at = now()
FROM jsonb_to_recordset($1::jsonb) AS done (task text, run integer)
WHERE tasks.id = done.task AND tasks.run = done.run AND tasks.purge_requested_at IS NULL

-- name: is_not_purged
SELECT EXISTS (SELECT FROM tasks WHERE id = $1 AND purge_requested_at IS NULL)

-- name: marked_for_purge
SELECT id FROM tasks WHERE purge_requested_at IS NOT NULL AND memory_deleted_at IS NULL ORDER BY purge_requested_at LIMIT $1

-- name: set_memory_deleted
UPDATE tasks SET memory_deleted_at = now() WHERE id = ANY ($1::text[])

-- name: put_artifacts
-- `stored`: the answer is too large for a message and is taken from the task.
INSERT INTO artifacts (task, run, tenant, title, text, answer, attributes, created_at)
SELECT new.task, new.run, new.tenant, new.title, new.text,
       CASE WHEN new.stored THEN tasks.result -> 'answer' ELSE new.answer END, new.attributes, new.created_at
FROM jsonb_to_recordset($1::jsonb) AS new (task text, run integer, tenant text, title text, text text, answer jsonb,
                                           stored boolean, attributes jsonb, created_at timestamptz)
JOIN tasks ON tasks.id = new.task
ON CONFLICT DO NOTHING

-- name: lock_graph_shared
-- Writers that add to a tenant's graph share this lock; one that deletes from it holds it exclusively.
SELECT pg_advisory_xact_lock_shared(hashtextextended('graph ' || tenant, 0)) FROM unnest($1::text[]) AS tenant

-- name: lock_graph
SELECT pg_advisory_xact_lock(hashtextextended('graph ' || tenant, 0)) FROM unnest($1::text[]) AS tenant

-- name: put_entities
INSERT INTO entities (id, tenant, type, name, attributes)
SELECT new.id, new.tenant, new.type, new.name, new.attributes
FROM jsonb_to_recordset($1::jsonb) AS new (id uuid, tenant text, type text, name text, attributes jsonb)
ON CONFLICT (id) DO UPDATE SET attributes = entities.attributes || excluded.attributes

-- name: put_relationships
INSERT INTO relationships (id, tenant, from_entity, type, to_entity, attributes)
SELECT new.id, new.tenant, new.from_entity, new.type, new.to_entity, new.attributes
FROM jsonb_to_recordset($1::jsonb) AS new (id uuid, tenant text, from_entity uuid, type text, to_entity uuid,
                                           attributes jsonb)
ON CONFLICT (id) DO UPDATE SET attributes = relationships.attributes || excluded.attributes

-- name: put_entity_sources
INSERT INTO entity_sources (entity, task)
SELECT new.id, new.task FROM jsonb_to_recordset($1::jsonb) AS new (id uuid, task text) ON CONFLICT DO NOTHING

-- name: put_relationship_sources
INSERT INTO relationship_sources (relationship, task)
SELECT new.id, new.task FROM jsonb_to_recordset($1::jsonb) AS new (id uuid, task text) ON CONFLICT DO NOTHING

-- name: documents_of
SELECT tenant, collection, name FROM documents WHERE task = ANY ($1::text[])

-- name: graph_tenants
SELECT DISTINCT entities.tenant FROM entity_sources JOIN entities ON entities.id = entity_sources.entity
WHERE entity_sources.task = ANY ($1::text[]) ORDER BY tenant

-- name: delete_relationships
WITH removed AS (
    DELETE FROM relationship_sources WHERE task = ANY ($1::text[]) RETURNING relationship
)
DELETE FROM relationships WHERE id IN (SELECT relationship FROM removed) AND NOT EXISTS (
    SELECT FROM relationship_sources
    WHERE relationship_sources.relationship = relationships.id AND NOT relationship_sources.task = ANY ($1::text[]))

-- name: delete_entities
WITH removed AS (
    DELETE FROM entity_sources WHERE task = ANY ($1::text[]) RETURNING entity
)
DELETE FROM entities WHERE id IN (SELECT entity FROM removed) AND NOT EXISTS (
    SELECT FROM entity_sources
    WHERE entity_sources.entity = entities.id AND NOT entity_sources.task = ANY ($1::text[]))

-- name: delete_artifacts
DELETE FROM artifacts WHERE task = ANY ($1::text[])
