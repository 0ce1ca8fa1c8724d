-- name: begin
-- A schedule that is new or has changed: true. Known and the same: nothing. Whoever else looks at it waits meanwhile.
INSERT INTO schedules AS known (name, cron, zone, due) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, zone = excluded.zone, due = excluded.due, submitted_at = NULL
WHERE known.cron <> excluded.cron OR known.zone <> excluded.zone
RETURNING true

-- name: advance
-- True where this time is later than the last one; until the end of the transaction nobody else can say so.
UPDATE schedules SET due = $4, submitted_at = now()
WHERE name = $1 AND cron = $2 AND zone = $3 AND coalesce(due, '-infinity') < $4
RETURNING true
