#!lua
-- redrive: request another run of a task that did not succeed.
-- Deliberately without allow-oom: when Redis is full, nothing new is started.
--
-- KEYS[1] ended runs   KEYS[2] stream steps.done   KEYS[3] status of the task   KEYS[4] control channel
-- ARGV    task, tenant, the run that ended, for how long it counts as ended in s, message fields, (name, value)*
-- Returns {accepted, state, run} | {unchanged, state, run} | {other_tenant, '', ''}; state and run are '' without a status.
-- The orchestrator decides whether to open the run. A repeated request opens no second one, because the message names the
-- run that it follows. What is left of that run is stopped (see ended_runs.lua), so that two runs are never executed at the
-- same time.
--@include lease.lua
--@include status.lua
--@include ended_runs.lua
local task, tenant, run = ARGV[1], ARGV[2], number(ARGV[3], 'run', 2 ^ 31 - 1)
local ttl, count = number(ARGV[4], 'ttl', MAX_TTL_S), number(ARGV[5], 'fields')
if run == 0 or ttl == 0 or count == 0 or #ARGV ~= 5 + 2 * count then
  error({err = 'ERR redrive: missing or wrong arguments'})
end
for i, kind in ipairs({'zset', 'stream'}) do
  local is = redis.call('TYPE', KEYS[i]).ok
  if is ~= 'none' and is ~= kind then error({err = 'WRONGTYPE ' .. KEYS[i] .. ' is a ' .. is .. ', not a ' .. kind}) end
end
local known = status_of(KEYS[3])
local holder, state, newest = known.tenant, known.state or '', known.run or ''
if holder and holder ~= tenant then return {'other_tenant', '', ''} end
local again = {failed = true, expired = true}
if state ~= '' and not (again[state] and tonumber(newest) == run) then return {'unchanged', state, newest} end
local message = {}
for i = 1, 2 * count do message[i] = ARGV[5 + i] end
redis.call('XADD', KEYS[2], '*', unpack(message))
end_run(KEYS[1], KEYS[4], task .. '.' .. string.format('%d', run), tenant, ttl)
return {'accepted', state, newest}
