-- Everything that joins words becomes a space and camelCase is taken apart; tables and queries must agree on it.
CREATE FUNCTION plain_words(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT RETURN
    regexp_replace(regexp_replace($1, '([a-z0-9])([A-Z])', '\1 \2', 'g'), '[!-/:-@\[-`{-~]+', ' ', 'g');

-- What is embedded lies in a vector store under the ids of `passages`; everything here can fill one anew.

CREATE TABLE documents (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    collection text NOT NULL,
    name text NOT NULL,
    media text NOT NULL CHECK (media IN ('markdown', 'text', 'code')),
    text text NOT NULL,
    -- Of everything its passages are made from: the same again costs nothing.
    sha256 text NOT NULL,
    attributes jsonb NOT NULL,
    -- Null: found by words only.
    embedder text,
    -- pending: its passages stand here, its vectors may not; leaving: its vectors may still be there.
    state text NOT NULL CHECK (state IN ('pending', 'ready', 'leaving')),
    tokens bigint NOT NULL,
    -- The finished task that left it, if one did.
    task text,
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, collection, name)
);

CREATE INDEX documents_by_attributes ON documents USING gin (attributes jsonb_path_ops);

CREATE INDEX documents_by_task ON documents (task) WHERE task IS NOT NULL;

CREATE INDEX documents_unfinished ON documents (changed_at) WHERE state <> 'ready';

CREATE TABLE passages (
    -- Derived from tenant, collection, document, place and text: written twice it is one.
    id uuid PRIMARY KEY,
    document uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    tenant text NOT NULL,
    collection text NOT NULL,
    ordinal integer NOT NULL,
    -- Characters from 0, the end exclusive; lines from 1.
    start_at integer NOT NULL,
    end_at integer NOT NULL,
    first_line integer NOT NULL,
    last_line integer NOT NULL,
    heading text NOT NULL,
    text text NOT NULL,
    -- Identifiers, paths, versions and words beyond ASCII, whole and in lower case: dictionaries would cut or drop them.
    names text[] NOT NULL,
    -- 'english' for prose (retries finds retry), and names beside it as they are: 'english' drops words like not and
    -- before, which names are made of.
    words tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('english', plain_words(heading)), 'B')
        || to_tsvector('english', plain_words(text))
        || array_to_tsvector(names)
    ) STORED,
    UNIQUE (document, ordinal)
);

-- Ranking reads the words of many passages: the text, which it does not read, moves out of the row instead.
ALTER TABLE passages ALTER COLUMN words SET STORAGE MAIN;

CREATE INDEX passages_by_words ON passages USING gin (words);

CREATE INDEX passages_by_collection ON passages (tenant, collection);

CREATE TABLE artifacts (
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    run integer NOT NULL,
    tenant text NOT NULL,
    title text NOT NULL,
    text text NOT NULL,
    answer jsonb,
    attributes jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    words tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('english', plain_words(title)), 'A')
        || to_tsvector('english', plain_words(left(text, 100000)))
    ) STORED,
    PRIMARY KEY (task, run)
);

CREATE INDEX artifacts_by_tenant ON artifacts (tenant, created_at DESC);

CREATE INDEX artifacts_by_attributes ON artifacts USING gin (attributes jsonb_path_ops);

CREATE INDEX artifacts_by_words ON artifacts USING gin (words);

CREATE TABLE entities (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    type text NOT NULL,
    name text NOT NULL,
    attributes jsonb NOT NULL,
    -- Names are names in any language.
    words tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('simple', plain_words(type || ' ' || name))) STORED,
    UNIQUE (tenant, type, name)
);

CREATE INDEX entities_by_attributes ON entities USING gin (attributes jsonb_path_ops);

CREATE INDEX entities_by_words ON entities USING gin (words);

CREATE TABLE relationships (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    from_entity uuid NOT NULL REFERENCES entities ON DELETE CASCADE,
    type text NOT NULL,
    to_entity uuid NOT NULL REFERENCES entities ON DELETE CASCADE,
    attributes jsonb NOT NULL,
    UNIQUE (tenant, from_entity, type, to_entity)
);

CREATE INDEX relationships_by_origin ON relationships (from_entity);

CREATE INDEX relationships_by_target ON relationships (to_entity);

CREATE INDEX relationships_by_attributes ON relationships USING gin (attributes jsonb_path_ops);

-- Which tasks say so: what no task says any more is forgotten with the last one.
CREATE TABLE entity_sources (
    entity uuid NOT NULL REFERENCES entities ON DELETE CASCADE,
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    PRIMARY KEY (task, entity)
);

CREATE INDEX entity_sources_by_entity ON entity_sources (entity);

CREATE TABLE relationship_sources (
    relationship uuid NOT NULL REFERENCES relationships ON DELETE CASCADE,
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    PRIMARY KEY (task, relationship)
);

CREATE INDEX relationship_sources_by_relationship ON relationship_sources (relationship);
