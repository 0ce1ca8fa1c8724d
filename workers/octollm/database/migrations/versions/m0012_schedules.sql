-- Up to which due time each schedule has been submitted.
CREATE TABLE schedules (
    name text PRIMARY KEY,
    cron text NOT NULL,
    zone text NOT NULL,
    due timestamptz,
    submitted_at timestamptz
);
