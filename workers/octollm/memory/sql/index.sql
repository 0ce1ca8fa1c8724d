-- name: finished
-- Locked in the order in which the orchestrator locks them. What is marked for the purge is to be forgotten.
SELECT id, tenant, run, state, left(submission ->> 'goal', 500) AS goal, memory, indexed_at IS NOT NULL AS remembered
FROM tasks WHERE id = ANY ($1::text[]) AND purge_requested_at IS NULL
ORDER BY id FOR NO KEY UPDATE

-- name: remembered
UPDATE tasks SET indexed_at = now()
FROM jsonb_to_recordset($1::jsonb) AS done (task text, run integer)
WHERE tasks.id = done.task AND tasks.run = done.run AND tasks.purge_requested_at IS NULL

-- name: is_kept
SELECT EXISTS (SELECT FROM tasks WHERE id = $1 AND purge_requested_at IS NULL)

-- name: to_forget
SELECT id FROM tasks WHERE purge_requested_at IS NOT NULL AND memory_deleted_at IS NULL ORDER BY purge_requested_at LIMIT $1

-- name: forgotten
UPDATE tasks SET memory_deleted_at = now() WHERE id = ANY ($1::text[])

-- name: put_artifacts
INSERT INTO artifacts (task, run, tenant, title, text, answer, attributes, created_at)
SELECT new.task, new.run, new.tenant, new.title, new.text, new.answer, new.attributes, new.created_at
FROM jsonb_to_recordset($1::jsonb) AS new (task text, run integer, tenant text, title text, text text, answer jsonb,
                                           attributes jsonb, created_at timestamptz)
ON CONFLICT DO NOTHING

-- name: share_graph
-- Whoever adds to a tenant's graph shares this lock; whoever takes away what nobody says any more holds it alone.
SELECT pg_advisory_xact_lock_shared(hashtextextended('graph ' || tenant, 0)) FROM unnest($1::text[]) AS tenant

-- name: hold_graph
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

-- name: forget_relationships
WITH unsaid AS (
    DELETE FROM relationship_sources WHERE task = ANY ($1::text[]) RETURNING relationship
)
DELETE FROM relationships WHERE id IN (SELECT relationship FROM unsaid) AND NOT EXISTS (
    SELECT FROM relationship_sources
    WHERE relationship_sources.relationship = relationships.id AND NOT relationship_sources.task = ANY ($1::text[]))

-- name: forget_entities
WITH unsaid AS (
    DELETE FROM entity_sources WHERE task = ANY ($1::text[]) RETURNING entity
)
DELETE FROM entities WHERE id IN (SELECT entity FROM unsaid) AND NOT EXISTS (
    SELECT FROM entity_sources
    WHERE entity_sources.entity = entities.id AND NOT entity_sources.task = ANY ($1::text[]))

-- name: forget_artifacts
DELETE FROM artifacts WHERE task = ANY ($1::text[])
