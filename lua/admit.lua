#!lua
-- admit: claim the idempotency key, publish the task and create its status, all or nothing.
-- Deliberately without allow-oom: when Redis is full, no new task is accepted, and running work can still finish.
--
-- KEYS[1] idempotency key   KEYS[2] stream of tasks   KEYS[3] status hash of the new task   KEYS[4..] see fairness.lua
-- ARGV    fingerprint, task id, time to live of the key in s, high-water mark (0: none),
--         status fields, (name, value)*, message fields, (name, value)*, the limits of the topic `tasks`, see fairness.lua
-- Returns {accepted, task} | {duplicate, first task} | {conflict, first task} | {busy, entries waiting}.
-- A repeat (same key, same fingerprint) returns the first task and changes nothing, even above the high-water mark.
-- The high-water mark counts the stream and what is queued for it. A tenant with an empty queue is accepted above it, so
-- that the backlog of other tenants cannot lock it out.
--@include fairness.lua
local fingerprint, task = ARGV[1], ARGV[2]
local ttl, mark = tonumber(ARGV[3]), tonumber(ARGV[4])
if not (ttl and ttl > 0 and mark) then error({err = 'ERR admit: time to live or high-water mark is not a number'}) end
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

local known = redis.call('GET', KEYS[1])
if known then
  local first_print, first_task = string.match(known, '^(%S+) (%S+)$')
  if first_print == fingerprint then return {'duplicate', first_task} end
  return {'conflict', first_task}
end
local stream = fair.of[KEYS[2]]
if not stream then error({err = 'ERR admit: the stream is not among the described ones'}) end
if mark > 0 then
  local length, waiting = redis.call('XLEN', KEYS[2]), waiting_of(stream)
  local first = waiting > 0 and redis.call('HEXISTS', stream.waiting, field_of(message, 'tenant')) == 0
  if length >= mark or (length + waiting >= mark and not first) then return {'busy', tostring(length + waiting)} end
end
push(stream, '', message)
redis.call('HSET', KEYS[3], unpack(status))
redis.call('SET', KEYS[1], fingerprint .. ' ' .. task, 'EX', ttl)
refill_touched(8)
return {'accepted', task}
