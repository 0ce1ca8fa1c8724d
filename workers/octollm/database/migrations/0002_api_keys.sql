-- compatible-from: 0001
-- API keys. The key itself is shown once and never stored.

CREATE TABLE api_keys (
    -- The visible part of the key, `octo_<id>_<secret>`.
    id text PRIMARY KEY CHECK (id ~ '^[a-z2-7]{12}$'),
    tenant text NOT NULL,
    name text,
    -- SHA-256 of the whole key. The secret has 256 random bits, so a slow hash would protect nothing more.
    hash bytea NOT NULL CHECK (length(hash) = 32),
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- Copied from Redis every few seconds.
    last_used_at timestamptz,
    -- The key whose successor this one is.
    replaces text REFERENCES api_keys
);

CREATE INDEX api_keys_by_age ON api_keys (created_at, id);

CREATE INDEX api_keys_by_predecessor ON api_keys (replaces) WHERE replaces IS NOT NULL;

-- Counts the changes that concern who may enter. Each change locks the only row until it commits, so that a higher number
-- always means a later state of the table; a sequence would not promise that.
CREATE TABLE api_key_changes (
    number bigint NOT NULL,
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);

INSERT INTO api_key_changes (number) VALUES (1);

CREATE FUNCTION count_api_key_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE api_key_changes SET number = number + 1;
    RETURN NULL;
END
$$;

CREATE TRIGGER api_keys_changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF id, tenant, hash, scopes, expires_at, revoked_at ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION count_api_key_change();
