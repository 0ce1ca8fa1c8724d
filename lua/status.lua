-- Shared by admit, cancel and redrive; the loader inserts it at `--@include status.lua`.
--
-- From its admission to the orchestrator's first status, a task's status is a string: a `task.status.v1` as JSON, which one
-- command writes. The orchestrator's statuses are hashes.

-- Returns the tenant, state, run and `stored` of a status, each as a hash holds it; none of them if there is no status.
-- Fails if the key holds anything else.
local function status_of(key)
  local text = redis.pcall('GET', key)
  if not text then return {} end
  if type(text) == 'string' then
    local fine, status = pcall(cjson.decode, text)
    if not fine or type(status) ~= 'table' then error({err = 'ERR ' .. key .. ' is not a status'}) end
    return {tenant = status.tenant, state = status.state, run = string.format('%d', status.run), stored = '0'}
  end
  local known = redis.call('HMGET', key, 'tenant', 'state', 'run', 'stored')
  return {tenant = known[1], state = known[2], run = known[3], stored = known[4]}
end
