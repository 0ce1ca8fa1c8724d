#!lua
-- admit: store tasks: claim the idempotency key of each, publish it and create its status, each task all or nothing.
-- Deliberately without allow-oom: when Redis is full, no new task is accepted, and running work can still finish.
--
-- KEYS    see fairness.lua; then the status hash of each task, and its idempotency key if it has one
-- ARGV    time to live of idempotency keys in s, high-water mark (0: none), number of tasks, then per task
--           key index of its stream, of its status and of its idempotency key (0: none), fingerprint, task id, tenant,
--           kind ('': none), time of its creation, message type, traceparent, body
--         the limits of the topic `tasks`, see fairness.lua
-- Returns per task, in order: accepted | {duplicate, first task, state} | {lost, first task, state}
--       | {conflict, first task} | {busy, entries waiting} | an error, after which nothing of the task was written.
-- An error of one task changes nothing for the others. A call that fails as a whole has written nothing.
--
-- A repeat (same key, same fingerprint) returns the first task and changes nothing, even above the high-water mark. `state`
-- is '' if there is no status. The key's value is the fingerprint, the task and where its message was put. A task without a
-- key can have no repeat.
-- `lost`: the orchestrator has not stored the task, as far as its status says, and its message is gone. A call whose own
-- task id is the lost task's publishes it again. That is safe: the orchestrator stores a task id once.
-- The high-water mark counts the stream and what is queued for it. A tenant with an empty queue is accepted above it, so
-- that the backlog of other tenants cannot lock it out.
--@include fairness.lua
local KEYS, ARGV = KEYS, ARGV
local FIRST, PER_TASK = 4, 11
local MAX_DISPATCHED = 8  -- per task: more than arrive, so that a backlog shrinks
local STATUS_TTL_S = 2592000  -- the orchestrator's first status replaces it within moments
local ttl, mark, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not (ttl and ttl > 0 and ttl <= 2147483647 and ttl % 1 == 0 and mark and mark >= 0) then
  error({err = 'ERR admit: time to live or high-water mark is not a number within its bounds'})
end
if not (count and count > 0 and FIRST + PER_TASK * count <= #ARGV) then
  error({err = 'ERR admit: tasks do not fit their count'})
end
read_fairness(FIRST + PER_TASK * count)

-- Looks at a stream once per call. Returns an error if nothing can be published there.
local function fault_of(stream)
  if stream.fault == nil then
    local is = redis.call('TYPE', stream.key).ok
    stream.fault = is ~= 'none' and is ~= 'stream' and {err = 'WRONGTYPE ' .. stream.key .. ' is a ' .. is .. ', not a stream'}
    if not stream.fault then
      defer_queues(stream)
      if mark > 0 then stream.length, stream.queued = redis.call('XLEN', stream.key), waiting_of(stream) end
    end
  end
  return stream.fault
end

-- Whether a message is where it was put. One that was queued may have moved to the stream since, under an unknown id.
local function is_there(stream, at)
  local key, id = string.match(at, '^(%S+) (%S+)$')
  write_queues(stream)
  if key == stream.waiting then return redis.call('HEXISTS', key, id) == 1 or redis.call('XLEN', stream.key) > 0 end
  if key == stream.key then return #redis.call('XRANGE', key, id, id) > 0 end
  return redis.call('XLEN', stream.key) > 0
end

local function is_full(stream, tenant)
  if mark == 0 then return false end
  local waiting = stream.length + stream.queued
  if stream.length < mark and (waiting < mark or (stream.queued > 0 and not has_queue(stream, tenant))) then return false end
  return {'busy', tostring(waiting)}
end

local function admit(at)
  local stream = fair.of[KEYS[tonumber(ARGV[at])]]
  local status, key = KEYS[tonumber(ARGV[at + 1])], KEYS[tonumber(ARGV[at + 2])]
  local fingerprint, task, tenant, kind = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  if not stream then return {err = 'ERR admit: the stream is not among the described ones'} end
  if not status then return {err = 'ERR admit: a key is missing'} end
  if fault_of(stream) then return stream.fault end
  local known = key and redis.pcall('GET', key)
  if type(known) == 'table' then return known end
  if known then
    local first_print, first_task, put = string.match(known, '^(%S+) (%S+) ?(.*)$')
    if first_print ~= fingerprint then return {'conflict', first_task} end
    local first_status = string.sub(status, 1, -#task - 1) .. first_task
    local state, stored = unpack(redis.call('HMGET', first_status, 'state', 'stored'))
    if stored == '1' or (state and state ~= 'accepted') or is_there(stream, put) then
      return {'duplicate', first_task, state or ''}
    end
    if first_task ~= task then return {'lost', first_task, state or ''} end
  end
  local full = is_full(stream, tenant)
  if full then return full end
  -- First what can fail: the status may be no hash. Without a kind, the task's own field is written twice.
  local created = redis.pcall('HSET', status, 'task', task, 'tenant', tenant, 'state', 'accepted', 'run', '1', 'version', '0',
    'stored', '0', 'created_at', ARGV[at + 7], kind ~= '' and 'kind' or 'task', kind ~= '' and kind or task)
  if type(created) == 'table' then return created end
  redis.call('EXPIRE', status, STATUS_TTL_S)
  local put, queued = push(stream, '', {'type', ARGV[at + 8], 'id', task, 'tenant', tenant, 'traceparent', ARGV[at + 9],
    'body', ARGV[at + 10]})
  if mark > 0 then
    if queued then stream.queued = stream.queued + 1 else stream.length = stream.length + 1 end
  end
  if key then redis.call('SET', key, fingerprint .. ' ' .. task .. ' ' .. put, 'EX', ttl) end
  return 'accepted'
end

local answers = {}
for i = 1, count do answers[i] = admit(FIRST + PER_TASK * (i - 1)) end
for _, stream in pairs(fair.of) do write_queues(stream) end
refill_touched(MAX_DISPATCHED * count)
return answers
