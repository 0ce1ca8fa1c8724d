#!lua flags=allow-oom
-- cancel: end what runs of a task and ask the orchestrator to cancel it, all or nothing.
-- The run counts as ended from now on (see ended_runs.lua): its steps are stopped, and none is started. The message ends
-- the task. If the task has ended already, what is left of its run is stopped all the same.
--
-- KEYS[1] ended runs   KEYS[2] stream steps.done   KEYS[3] status of the task   KEYS[4] control channel
-- ARGV    task, tenant, newest run that the caller knows, for how long the run counts as ended in s, message fields,
--         (name, value)*
-- Returns {accepted, state} | {ended, state} | {other_tenant, ''}; state is '' if Redis holds no status.
-- A repeated call publishes the message again, because the first one may have been lost with its stream.
--@include lease.lua
--@include status.lua
--@include ended_runs.lua
local task, tenant, run = ARGV[1], ARGV[2], number(ARGV[3], 'run', 2 ^ 31 - 1)
local ttl, count = number(ARGV[4], 'ttl', MAX_TTL_S), number(ARGV[5], 'fields')
if run == 0 or ttl == 0 or count == 0 or #ARGV ~= 5 + 2 * count then
  error({err = 'ERR cancel: missing or wrong arguments'})
end
for i, kind in ipairs({'zset', 'stream'}) do
  local is = redis.call('TYPE', KEYS[i]).ok
  if is ~= 'none' and is ~= kind then error({err = 'WRONGTYPE ' .. KEYS[i] .. ' is a ' .. is .. ', not a ' .. kind}) end
end
local known = status_of(KEYS[3])
local holder, state = known.tenant, known.state or ''
-- The status names the task's tenant. Without a status the caller is trusted: steps of another tenant are not concerned.
if (holder or tenant) ~= tenant then return {'other_tenant', ''} end
run = math.max(run, tonumber(known.run or 0) or 0)
local over = ({succeeded = true, failed = true, rejected = true, cancelled = true, expired = true})[state]
if not over then
  local message = {}
  for i = 1, 2 * count do message[i] = ARGV[5 + i] end
  redis.call('XADD', KEYS[2], '*', unpack(message))
end
end_run(KEYS[1], KEYS[4], task .. '.' .. string.format('%d', run), tenant, ttl)
return {over and 'ended' or 'accepted', state}
