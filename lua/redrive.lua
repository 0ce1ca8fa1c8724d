#!lua
-- redrive: request another run of a task that did not succeed, and withdraw an earlier cancel request.
-- Deliberately without allow-oom: when Redis is full, nothing new is started.
--
-- KEYS[1] marker of a cancelled task   KEYS[2] stream steps.done   KEYS[3] status hash of the task   KEYS[4] cancelled tasks
-- ARGV    tenant, the run that ended, message fields, (name, value)*
-- Returns {accepted, state, run} | {unchanged, state, run} | {other_tenant, '', ''}; state and run are '' without a status.
-- The orchestrator decides whether to open the run. A repeated request opens no second one, because the message names the
-- run that it follows. The cancel marker is removed, since it would drop every step of the new run.
local tenant, run, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not (tenant and run and run > 0 and count and count > 0 and #ARGV == 3 + 2 * count) then
  error({err = 'ERR redrive: missing or wrong arguments'})
end
for i, kind in ipairs({'string', 'stream', 'hash', 'zset'}) do
  local is = redis.call('TYPE', KEYS[i]).ok
  if is ~= 'none' and is ~= kind then error({err = 'WRONGTYPE ' .. KEYS[i] .. ' is a ' .. is .. ', not a ' .. kind}) end
end
local known = redis.call('HMGET', KEYS[3], 'tenant', 'state', 'run')
local holder, state, newest = known[1], known[2] or '', known[3] or ''
if holder and holder ~= tenant then return {'other_tenant', '', ''} end
local again = {failed = true, expired = true}
if state ~= '' and not (again[state] and tonumber(newest) == run) then return {'unchanged', state, newest} end
local message = {}
for i = 1, 2 * count do message[i] = ARGV[3 + i] end
redis.call('XADD', KEYS[2], '*', unpack(message))
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[4], string.match(KEYS[1], '[^:]*$') .. ' ' .. tenant)
return {'accepted', state, newest}
