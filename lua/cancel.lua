#!lua flags=allow-oom
-- cancel: mark a task as cancelled and notify the orchestrator, all or nothing.
-- The marker makes `complete` and `renew` drop the task's steps. The member of the set of cancelled tasks makes `promote`
-- and the dispatcher drop steps that are queued or scheduled. The message ends the task.
--
-- KEYS[1] marker of the task   KEYS[2] stream steps.done   KEYS[3] status hash of the task   KEYS[4] cancelled tasks
-- ARGV    tenant, time to live of the marker in s, message fields, (name, value)*
-- Returns {accepted, state} | {ended, state} | {other_tenant, ''}; state is '' if Redis holds no status.
-- A repeated call publishes the message again, because the first one may have been lost with its stream.
local tenant, ttl, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not (tenant and ttl and ttl > 0 and ttl <= 2147483647 and ttl % 1 == 0 and count and count > 0 and #ARGV == 3 + 2 * count) then
  error({err = 'ERR cancel: missing or wrong arguments'})
end
for i, kind in ipairs({'string', 'stream', 'hash', 'zset'}) do
  local is = redis.call('TYPE', KEYS[i]).ok
  if is ~= 'none' and is ~= kind then error({err = 'WRONGTYPE ' .. KEYS[i] .. ' is a ' .. is .. ', not a ' .. kind}) end
end
local known = redis.call('HMGET', KEYS[3], 'tenant', 'state')
local holder, state = known[1], known[2] or ''
local marked = redis.call('GET', KEYS[1])
-- The status names the task's tenant. Without a status the first caller is trusted; `complete` compares the tenant again.
if (holder or marked or tenant) ~= tenant then return {'other_tenant', ''} end
local ended = {succeeded = true, failed = true, rejected = true, cancelled = true, expired = true}
if ended[state] then return {'ended', state} end
local message = {}
for i = 1, 2 * count do message[i] = ARGV[3 + i] end
redis.call('XADD', KEYS[2], '*', unpack(message))
redis.call('SET', KEYS[1], tenant, 'EX', ttl)
local now, task = tonumber(redis.call('TIME')[1]), string.match(KEYS[1], '[^:]*$')
redis.call('ZADD', KEYS[4], now + ttl, task .. ' ' .. tenant)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[4], old)
end
return {'accepted', state}
