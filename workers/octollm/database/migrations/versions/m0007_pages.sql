-- Pages go by (received_at, id): many tasks may arrive within one millisecond.
CREATE INDEX tasks_by_arrival ON tasks (tenant, received_at, id);

DROP INDEX tasks_by_tenant;

-- For states that are rare among many tasks, which is what people look for. Other filters are found by walking.
CREATE INDEX tasks_by_state ON tasks (tenant, state, received_at, id);

CREATE INDEX dead_letters_by_tenant ON dead_letters (tenant, id);
