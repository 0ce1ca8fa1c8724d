-- name: results_not_indexed
-- Published long enough ago (twice as long each time) and no longer queued for memory. The same statement marks them as
-- published, so that no other process returns them too.
UPDATE tasks
SET result_sent_at = now(), result_send_count = coalesce(result_send_count, 0) + 1
WHERE id IN (
    SELECT id FROM tasks
    WHERE result_sent_at IS NOT NULL AND indexed_at IS NULL AND purge_requested_at IS NULL
      AND result_sent_at < least(now(), $2::timestamptz) - make_interval(secs => $1)
      AND result_sent_at < now() - make_interval(secs => $1 * power(2, least(coalesce(result_send_count, 0), 12)))
    ORDER BY result_sent_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING *

-- name: mark_for_purge
UPDATE tasks SET purge_requested_at = now()
WHERE id IN (
    SELECT id FROM tasks
    WHERE finished_at < now() - make_interval(days => $1) AND purge_requested_at IS NULL
    ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: purge_candidates
SELECT id FROM tasks
WHERE purge_requested_at IS NOT NULL AND (memory_deleted_at IS NOT NULL OR NOT $1)
ORDER BY purge_requested_at LIMIT $2 FOR UPDATE SKIP LOCKED

-- name: delete_dead_letters
DELETE FROM dead_letters WHERE task = ANY ($1::text[])

-- name: delete_dead_letters_of_no_task
-- Dead letters without a task, or whose task does not exist: they are not deleted with one.
DELETE FROM dead_letters
WHERE id IN (
    SELECT id FROM dead_letters AS old
    WHERE received_at < now() - make_interval(days => $1)
      AND NOT EXISTS (SELECT FROM tasks WHERE tasks.id = old.task)
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: delete_cancel_requests
DELETE FROM cancel_requests WHERE task = ANY ($1::text[])

-- name: delete_tasks
-- Deletes runs, steps, attempts, events and callbacks too, by cascade.
DELETE FROM tasks WHERE id = ANY ($1::text[])

-- name: delete_unused_endpoints
-- Endpoints that no callback is left of. Disabled ones stay disabled.
DELETE FROM callback_endpoints AS old
WHERE disabled_at IS NULL AND failing_since < now() - make_interval(days => $1)
  AND NOT EXISTS (SELECT FROM callbacks WHERE callbacks.tenant = old.tenant AND callbacks.endpoint = old.name)

-- name: delete_unused_outputs
-- Outputs that no step refers to. An output is stored before its step, which may run for a day: hence two days at least.
DELETE FROM outputs
WHERE (tenant, sha256) IN (
    SELECT tenant, sha256 FROM outputs AS old
    WHERE created_at < now() - make_interval(days => greatest($1, 2))
      AND NOT EXISTS (
          SELECT FROM steps JOIN tasks ON tasks.id = steps.task
          WHERE steps.output_sha256 = old.sha256 AND tasks.tenant = old.tenant
      )
    LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: finished_after
-- Tasks that ended between $3 and $4 seconds ago, from the place that $1 and $2 name.
SELECT id, finished_at FROM tasks
WHERE finished_at IS NOT NULL AND purge_requested_at IS NULL
  AND finished_at > now() - make_interval(secs => $3) AND finished_at < now() - make_interval(secs => $4)
  AND (finished_at, id) > ($1::timestamptz, $2)
ORDER BY finished_at, id LIMIT $5
