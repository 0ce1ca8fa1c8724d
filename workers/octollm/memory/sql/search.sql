-- name: lock_document
-- Held by the connection: two ingests of one document, anywhere, never mix their passages and vectors.
SELECT pg_advisory_lock(hashtextextended($1, 0))

-- name: unlock_document
SELECT pg_advisory_unlock(hashtextextended($1, 0))

-- name: document
SELECT sha256, embedder, state, tokens, task, (SELECT count(*) FROM passages WHERE document = documents.id) AS passages
FROM documents WHERE id = $1

-- name: put_document
INSERT INTO documents (id, tenant, collection, name, media, text, sha256, attributes, embedder, state, tokens, task)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, 'pending', $10, $11)
ON CONFLICT (id) DO UPDATE
SET media = excluded.media, text = excluded.text, sha256 = excluded.sha256, attributes = excluded.attributes,
    embedder = excluded.embedder, state = 'pending', tokens = excluded.tokens, task = excluded.task, changed_at = now()

-- name: delete_passages
DELETE FROM passages WHERE document = $1

-- name: put_passages
INSERT INTO passages (id, document, tenant, collection, ordinal, start_at, end_at, first_line, last_line, heading, text,
                      names)
SELECT new.id, $1, $2, $3, new.ordinal, new.start_at, new.end_at, new.first_line, new.last_line, new.heading, new.text,
       new.names
FROM jsonb_to_recordset($4::jsonb) AS new (id uuid, ordinal integer, start_at integer, end_at integer,
                                           first_line integer, last_line integer, heading text, text text, names text[])

-- name: ready
UPDATE documents SET state = 'ready', changed_at = now() WHERE id = $1

-- name: claim_for_task
UPDATE documents SET task = $2 WHERE id = $1 AND task IS DISTINCT FROM $2

-- name: mark_deleting
UPDATE documents SET state = 'deleting', text = '', sha256 = '', changed_at = now() WHERE id = $1

-- name: delete_document
DELETE FROM documents WHERE id = $1

-- name: read
SELECT substring(text FROM $4::integer + 1 FOR $5::integer - $4::integer) FROM documents
WHERE tenant = $1 AND collection = $2 AND name = $3 AND state <> 'deleting'

-- name: unfinished
-- What a crash left half done, and what was embedded by another model than this one or by none.
SELECT tenant, collection, name, media, text, attributes, state, task FROM documents
WHERE (state <> 'ready' AND changed_at < now() - make_interval(secs => $1))
   OR (state = 'ready' AND $2::text IS NOT NULL AND embedder IS DISTINCT FROM $2)
ORDER BY changed_at LIMIT $3

-- name: words_of_query
SELECT lexeme FROM unnest(to_tsvector('english', plain_words($1))) ORDER BY positions[1]

-- name: phrase
SELECT phraseto_tsquery('english', plain_words($1))::text

-- name: statistics
SELECT most_common_elems::text::text[] AS words, most_common_elem_freqs AS shares, pg_class.reltuples AS passages
FROM pg_class
LEFT JOIN pg_stats ON pg_stats.schemaname = pg_class.relnamespace::regnamespace::text
    AND pg_stats.tablename = pg_class.relname AND pg_stats.attname = 'words'
WHERE pg_class.oid = 'passages'::regclass

-- name: size
-- Counted no further than what the ranking can make use of.
SELECT count(*) FROM (
    SELECT 1 FROM passages WHERE tenant = $1 AND ($2::text IS NULL OR collection = $2) LIMIT $3
) AS seen

-- name: frequencies
-- In how many passages each word stands, counted no further than $3.
SELECT asked.word, (
    SELECT count(*) FROM (
        SELECT 1 FROM passages
        WHERE passages.tenant = $1 AND passages.words @@ asked.word::tsquery LIMIT $3
    ) AS seen
) AS passages
FROM unnest($2::text[]) AS asked (word)

-- name: by_words
-- $4: which passages to look at, $6 and $7: what each word they have is worth. `ts_rank` of one word grows with how often
-- it stands there, ever less.
WITH candidates AS MATERIALIZED (
    SELECT passages.id, passages.words FROM passages
    WHERE passages.tenant = $1 AND ($2::text IS NULL OR passages.collection = $2)
      AND passages.words @@ $4::tsquery
      AND ($3::jsonb IS NULL OR EXISTS (
          SELECT FROM documents WHERE documents.id = passages.document AND documents.attributes @> $3))
    LIMIT $5
)
SELECT candidates.id
FROM candidates
CROSS JOIN LATERAL (
    SELECT sum(asked.worth * ts_rank('{0.3, 0.3, 0.5, 1}', candidates.words, asked.word::tsquery)) AS score
    FROM unnest($6::text[], $7::float8[]) AS asked (word, worth)
) AS ranked
ORDER BY ranked.score DESC, candidates.id LIMIT $8

-- name: passages
SELECT passages.id, passages.collection, documents.name, passages.start_at, passages.end_at, passages.first_line,
       passages.last_line, passages.text, passages.heading, documents.attributes
FROM passages JOIN documents ON documents.id = passages.document
WHERE passages.id = ANY ($2::uuid[]) AND passages.tenant = $1
