-- name: grouped
-- Days are in UTC, the time zone of the session. Surplus answers came too late to be used, but were paid for.
WITH matching AS (
    SELECT calls.*,
           CASE $2
               WHEN 'task' THEN calls.task
               WHEN 'arm' THEN calls.arm
               WHEN 'model' THEN calls.model
               ELSE to_char(calls.answered_at, 'YYYY-MM-DD')
           END COLLATE "C" AS key
    FROM model_calls AS calls
    WHERE calls.tenant = $1
      AND ($3::text IS NULL OR calls.task = $3)
      AND ($4::timestamptz IS NULL OR calls.answered_at >= $4)
      AND ($5::timestamptz IS NULL OR calls.answered_at < $5)
)
SELECT key, count(*) + sum(surplus_calls)::bigint AS calls,
       coalesce(sum(input_tokens), 0)::bigint AS input_tokens, coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
       coalesce(sum(cache_read_tokens), 0)::bigint AS cache_read_tokens,
       coalesce(sum(cache_write_tokens), 0)::bigint AS cache_write_tokens,
       sum(cost_usd + surplus_cost_usd) AS cost_usd, count(*) - count(cost_usd) AS unpriced_calls
FROM matching
WHERE $6::text IS NULL OR key < $6
GROUP BY key
ORDER BY key DESC
LIMIT $7

-- name: total
SELECT count(*) + coalesce(sum(surplus_calls), 0)::bigint AS calls,
       coalesce(sum(input_tokens), 0)::bigint AS input_tokens, coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
       coalesce(sum(cache_read_tokens), 0)::bigint AS cache_read_tokens,
       coalesce(sum(cache_write_tokens), 0)::bigint AS cache_write_tokens,
       sum(cost_usd + surplus_cost_usd) AS cost_usd, count(*) - count(cost_usd) AS unpriced_calls
FROM model_calls
WHERE tenant = $1
  AND ($2::text IS NULL OR task = $2)
  AND ($3::timestamptz IS NULL OR answered_at >= $3)
  AND ($4::timestamptz IS NULL OR answered_at < $4)
  AND ($5::integer IS NULL OR run = $5)
