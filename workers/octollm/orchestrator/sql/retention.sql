-- name: unremembered
-- Ended long enough ago, each time twice as long, and not among what memory still has before it. Marked as sent in the
-- same breath, so that nobody looks at them again soon.
UPDATE tasks
SET result_sent_at = now(), result_send_count = coalesce(result_send_count, 0) + 1
WHERE id IN (
    SELECT id FROM tasks
    WHERE result_sent_at IS NOT NULL AND indexed_at IS NULL AND purge_requested_at IS NULL
      AND result_sent_at < least(now(), $2::timestamptz) - make_interval(secs => $1)
      AND result_sent_at < now() - make_interval(secs => $1 * power(2, least(coalesce(result_send_count, 0), 12)))
    ORDER BY result_sent_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING result, traceparent

-- name: mark_for_purge
UPDATE tasks SET purge_requested_at = now()
WHERE id IN (
    SELECT id FROM tasks
    WHERE finished_at < now() - make_interval(days => $1) AND purge_requested_at IS NULL
    ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: doomed
SELECT id FROM tasks
WHERE purge_requested_at IS NOT NULL AND (memory_deleted_at IS NOT NULL OR NOT $1)
ORDER BY purge_requested_at LIMIT $2 FOR UPDATE SKIP LOCKED

-- name: purge_letters
DELETE FROM dead_letters WHERE task = ANY ($1::text[])

-- name: purge_stray_letters
-- Of no task, or of one that is not there: no task takes them along.
DELETE FROM dead_letters
WHERE id IN (
    SELECT id FROM dead_letters AS old
    WHERE received_at < now() - make_interval(days => $1)
      AND NOT EXISTS (SELECT FROM tasks WHERE tasks.id = old.task)
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: purge_requests
DELETE FROM cancel_requests WHERE task = ANY ($1::text[])

-- name: purge_tasks
-- Runs, steps, attempts and events go with them.
DELETE FROM tasks WHERE id = ANY ($1::text[])

-- name: purge_outputs
-- Of which no step is left. A new one's step is stored later than itself: a step may run for a day.
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
