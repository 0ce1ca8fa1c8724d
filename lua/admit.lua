#!lua
-- admit: claim the idempotency key, publish the task and create its status, all or nothing.
-- Deliberately without allow-oom: when Redis is full, no new task is accepted, and running work can still finish.
--
-- KEYS[1] idempotency key   KEYS[2] stream of tasks   KEYS[3] status hash of the new task   KEYS[4..] see fairness.lua
-- ARGV    fingerprint, task id, time to live of the key in s, high-water mark (0: none),
--         status fields, (name, value)*, message fields, (name, value)*, the limits of the topic `tasks`, see fairness.lua
-- Returns {accepted, task} | {duplicate, first task, state} | {lost, first task, state} | {conflict, first task}
--       | {busy, entries waiting}.
-- A repeat (same key, same fingerprint) returns the first task and changes nothing, even above the high-water mark. `state`
-- is '' if there is no status. The key's value is the fingerprint, the task and where its message was put.
-- `lost`: the orchestrator has not stored the task, as far as its status says, and its message is gone. A call whose own
-- task id is the lost task's publishes it again. That is safe: the orchestrator stores a task id once.
-- The high-water mark counts the stream and what is queued for it. A tenant with an empty queue is accepted above it, so
-- that the backlog of other tenants cannot lock it out.
--@include fairness.lua
local fingerprint, task = ARGV[1], ARGV[2]
local ttl, mark = tonumber(ARGV[3]), tonumber(ARGV[4])
if not (ttl and ttl > 0 and ttl <= 2147483647 and ttl % 1 == 0 and mark and mark >= 0) then
  error({err = 'ERR admit: time to live or high-water mark is not a number within its bounds'})
end
local function fields(at)
  local count = tonumber(ARGV[at])
  if not count or count < 1 or at + 2 * count > #ARGV then error({err = 'ERR admit: fields do not fit their count'}) end
  local list = {}
  for i = 1, 2 * count do list[i] = ARGV[at + i] end
  return list, at + 2 * count + 1
end
local status, at = fields(5)
local message
message, at = fields(at)
read_fairness(at)
for i, kind in ipairs({'string', 'stream', 'hash'}) do
  local is = redis.call('TYPE', KEYS[i]).ok
  if is ~= 'none' and is ~= kind then error({err = 'WRONGTYPE ' .. KEYS[i] .. ' is a ' .. is .. ', not a ' .. kind}) end
end

local stream = fair.of[KEYS[2]]
if not stream then error({err = 'ERR admit: the stream is not among the described ones'}) end

-- Whether a message is where it was put. One that was queued may have moved to the stream since, under an unknown id.
local function is_there(at)
  local key, id = string.match(at, '^(%S+) (%S+)$')
  if key == stream.waiting then return redis.call('HEXISTS', key, id) == 1 or redis.call('XLEN', stream.key) > 0 end
  if key == stream.key then return #redis.call('XRANGE', key, id, id) > 0 end
  return redis.call('XLEN', stream.key) > 0
end
local known = redis.call('GET', KEYS[1])
if known then
  local first_print, first_task, at = string.match(known, '^(%S+) (%S+) ?(.*)$')
  if first_print ~= fingerprint then return {'conflict', first_task} end
  local first_status = string.sub(KEYS[3], 1, -#task - 1) .. first_task
  local state, stored = unpack(redis.call('HMGET', first_status, 'state', 'stored'))
  if stored == '1' or (state and state ~= 'accepted') or is_there(at) then return {'duplicate', first_task, state or ''} end
  if first_task ~= task then return {'lost', first_task, state or ''} end
end
if mark > 0 then
  local length, waiting = redis.call('XLEN', KEYS[2]), waiting_of(stream)
  local first = waiting > 0 and redis.call('HEXISTS', stream.waiting, field_of(message, 'tenant')) == 0
  if length >= mark or (length + waiting >= mark and not first) then return {'busy', tostring(length + waiting)} end
end
local at = push(stream, '', message)
redis.call('SET', KEYS[1], fingerprint .. ' ' .. task .. ' ' .. at, 'EX', ttl)
redis.call('HSET', KEYS[3], unpack(status))
redis.call('EXPIRE', KEYS[3], 2592000)  -- the orchestrator's first status replaces it within moments
refill_touched(8)
return {'accepted', task}
