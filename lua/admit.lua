#!lua
-- admit: store tasks: claim the idempotency key of each, publish it and create its status, each task all or nothing.
-- Deliberately without allow-oom: when Redis is full, no new task is accepted, and running work can still finish.
--
-- KEYS    see fairness.lua; then of each task its status, and its idempotency key if it has a fingerprint
-- ARGV    time to live of idempotency keys in s, high-water mark (0: none), number of tasks, index of the first task's first
--         key, then per task
--           key index of its stream, tenant, status (`task.status.v1` as JSON), message, fingerprint ('': no idempotency key),
--           and its id if it has a fingerprint
--         the limits of the topic `tasks`, see fairness.lua
-- Returns `accepted` if every task is; else per task, in order: accepted | {duplicate, first task, state}
--       | {lost, first task, state} | {conflict, first task} | {busy, entries waiting} | an error, after which nothing of the
--       task was written.
-- An error of one task changes nothing for the others. A call that fails as a whole has written nothing.
--
-- The message is packed by its sender as a queue holds it, because it is usually queued: as `cmsgpack` packs
-- {'', {name, value, ...}}. The status is a string, which costs less than a hash, until the orchestrator's first status
-- replaces it; see status.lua.
-- A repeat (same key, same fingerprint) returns the first task and changes nothing, even above the high-water mark. `state`
-- is '' if there is no status. The key's value is the fingerprint, the task and where its message was put. A task without a
-- key can have no repeat.
-- `lost`: the orchestrator has not stored the task, as far as its status says, and its message is gone. A call whose own
-- task id is the lost task's publishes it again. That is safe: the orchestrator stores a task id once.
-- The high-water mark counts the stream and what is queued for it. A tenant with an empty queue is accepted above it, so
-- that the backlog of other tenants cannot lock it out.
--@include status.lua
--@include fairness.lua
local KEYS, ARGV = KEYS, ARGV
local MAX_DISPATCHED = 8  -- per task: more than arrive, so that a backlog shrinks
local STATUS_TTL_S = 2592000  -- the orchestrator's first status replaces it within moments
local ttl, mark, count, next_key = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not (ttl and ttl > 0 and ttl <= 2147483647 and ttl % 1 == 0 and mark and mark >= 0) then
  error({err = 'ERR admit: time to live or high-water mark is not a number within its bounds'})
end
-- The tasks, read before anything is written.
local tasks, at = {}, 5
for i = 1, count and next_key and count or 0 do
  local task = {stream = ARGV[at], tenant = ARGV[at + 1], status_key = KEYS[next_key], status = ARGV[at + 2],
    message = ARGV[at + 3], fingerprint = ARGV[at + 4]}
  at, next_key = at + 5, next_key + 1
  if not (task.fingerprint and task.status_key) then error({err = 'ERR admit: tasks or keys do not fit their count'}) end
  if task.fingerprint ~= '' then
    task.key, task.id = KEYS[next_key], ARGV[at]
    at, next_key = at + 1, next_key + 1
    if not (task.key and task.id) then error({err = 'ERR admit: tasks or keys do not fit their count'}) end
  end
  tasks[i] = task
end
if #tasks == 0 then error({err = 'ERR admit: tasks do not fit their count'}) end
read_fairness(at)

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

local function admit(task)
  local stream = fair.of[KEYS[tonumber(task.stream)]]
  if not stream then return {err = 'ERR admit: the stream is not among the described ones'} end
  if fault_of(stream) then return stream.fault end
  local known = task.key and redis.pcall('GET', task.key)
  if type(known) == 'table' then return known end
  if known then
    local first_print, first_task, put = string.match(known, '^(%S+) (%S+) ?(.*)$')
    if first_print ~= task.fingerprint then return {'conflict', first_task} end
    local first = status_of(string.sub(task.status_key, 1, -#task.id - 1) .. first_task)
    if first.stored == '1' or (first.state and first.state ~= 'accepted') or is_there(stream, put) then
      return {'duplicate', first_task, first.state or ''}
    end
    if first_task ~= task.id then return {'lost', first_task, first.state or ''} end
  end
  local full = is_full(stream, task.tenant)
  if full then return full end
  local place, entry, queued = push_packed(stream, task.tenant, task.message)
  if not place then return {err = 'ERR admit: a message is not packed as a queue holds it'} end
  redis.call('SET', task.status_key, task.status, 'EX', STATUS_TTL_S)
  if mark > 0 then
    if queued then stream.queued = stream.queued + 1 else stream.length = stream.length + 1 end
  end
  if task.key then redis.call('SET', task.key, task.fingerprint .. ' ' .. task.id .. ' ' .. place .. ' ' .. entry, 'EX', ttl) end
  return 'accepted'
end

local answers, all_accepted = {}, true
for i, task in ipairs(tasks) do
  answers[i] = admit(task)
  all_accepted = all_accepted and answers[i] == 'accepted'
end
for _, stream in pairs(fair.of) do write_queues(stream) end
refill_touched(MAX_DISPATCHED * count)
return all_accepted and 'accepted' or answers
