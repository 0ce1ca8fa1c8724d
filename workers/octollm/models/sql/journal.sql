-- name: find
SELECT answer, provider, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens
FROM model_calls
WHERE task = $1 AND run = $2 AND step = $3 AND swarm_member = $4 AND round = $5 AND purpose = $6 AND call = $7
    AND repair = $8 AND request_sha256 = $9;

-- The first answer stays; a second one is only counted. Either way the one that counts comes back.
-- name: keep
INSERT INTO model_calls AS kept (
    task, run, step, swarm_member, round, purpose, call, repair, request_sha256, tenant, arm, provider, model, answer,
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, attempt, delivery, asked_at, answered_at,
    answer_id
)
VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24
)
ON CONFLICT (task, run, step, swarm_member, round, purpose, call, repair, request_sha256) DO UPDATE SET
    surplus_calls = kept.surplus_calls + (kept.answer_id <> EXCLUDED.answer_id)::integer,
    surplus_cost_usd = kept.surplus_cost_usd
        + CASE WHEN kept.answer_id <> EXCLUDED.answer_id THEN coalesce(EXCLUDED.cost_usd, 0) ELSE 0 END
RETURNING answer, provider, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens;
