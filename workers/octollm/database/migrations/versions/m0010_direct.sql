-- Of the output, where a step may have been handed on that was made from it: SHA-256 of its JSON with sorted keys.
ALTER TABLE steps ADD COLUMN digest text;

-- Ends of a step that was handed on directly, as they came (step.done.v1), while what it builds on is not committed.
ALTER TABLE steps ADD COLUMN early text[];
