-- name: insert_or_replace
-- Returns true for a schedule that is new or has changed, no row otherwise. Locks the row.
INSERT INTO schedules AS known (name, cron, zone, due) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, zone = excluded.zone, due = excluded.due, submitted_at = NULL
WHERE known.cron <> excluded.cron OR known.zone <> excluded.zone
RETURNING true

-- name: advance
-- Returns true if this due time is later than the last one. No other transaction can do so before this one ends.
UPDATE schedules SET due = $4, submitted_at = now()
WHERE name = $1 AND cron = $2 AND zone = $3 AND coalesce(due, '-infinity') < $4
RETURNING true
