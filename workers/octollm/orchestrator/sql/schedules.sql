-- name: insert_or_replace
-- Returns true for a schedule that is new or has changed, no row otherwise. Locks the row. A due time that lies in the
-- future was written by the clock of an earlier release or by hand, and counts as a change; a minute of it is allowed, since
-- another process may have read the time a moment later.
INSERT INTO schedules AS known (name, cron, zone, due) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, zone = excluded.zone, due = excluded.due, submitted_at = NULL
WHERE known.cron <> excluded.cron OR known.zone <> excluded.zone OR known.due > $5::timestamptz + interval '1 minute'
RETURNING true

-- name: advance
-- Returns true if this due time is later than the last one. No other transaction can do so before this one ends.
UPDATE schedules SET due = $4, submitted_at = now()
WHERE name = $1 AND cron = $2 AND zone = $3 AND coalesce(due, '-infinity') < $4
RETURNING true

-- name: set_submitted
UPDATE schedules SET submitted_at = now() WHERE name = $1

-- name: delete_others
-- Schedules that are no longer in the file. If one comes back, it is new: what was due meanwhile does not count.
DELETE FROM schedules WHERE name <> ALL ($1::text[])

-- name: now
SELECT clock_timestamp()
