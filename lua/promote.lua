#!lua flags=allow-oom
-- promote: publish due messages of the schedule, each once, dispatch queued messages, and drop steps of ended runs.
--
-- KEYS[1] in-flight index   KEYS[2] schedule (message id by due time in ms)
-- KEYS[3] messages (message id -> JSON of stream, in-flight field and fields)
-- KEYS[4] ended runs      KEYS[5..] other streams of scheduled messages, then the keys of fairness.lua
-- ARGV    maximum number of messages, number of other streams, limits of all topics with priorities, see fairness.lua
-- Returns {moved, due time in ms of the next message or 0, dropped, now in ms, malformed, (messages queued for a stream)*}, in
-- the given order. `malformed`: messages that cannot be read; they become dead letters. If it was a step's, the reconciler
-- publishes the step again.
--
-- Also removes ended runs whose time is over, see ended_runs.lua.
-- Includes topics with priorities that have no window or cap: what was queued before the limit was removed must not stay.
--@include lease.lua
--@include fairness.lua
local most, others = number(ARGV[1], 'most'), number(ARGV[2], 'other streams')
local in_flight, schedule, messages = KEYS[1], KEYS[2], KEYS[3]
local allowed = {}
for i = 5, 4 + others do allowed[KEYS[i]] = true end
read_fairness(3, in_flight)
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

-- A scheduled message; nil if another writer has broken it, or put a message of another lane here.
local lane = string.match(schedule, '^{.-}:') or ''
local function parse(text)
  local fine, message = pcall(cjson.decode, text)
  if not (fine and type(message) == 'table' and are_fields(message.fields)) then return end
  local stream = message.stream
  if type(message.in_flight) ~= 'string' or type(stream) ~= 'string' or string.sub(stream, 1, #lane) ~= lane then return end
  return message
end

-- A stream that this caller does not know belongs to a newer topology. Its messages are left to a caller that knows it, and
-- skipped, so that they cannot block the others.
local moved, left, page = 0, 0, nil
local function publish(id, message)
  local stream = fair.of[message.stream]
  local ours = message.in_flight ~= '' and redis.call('HGET', in_flight, message.in_flight) == schedule .. ' ' .. id
  if are_of_ended_runs({message.fields}, 1)[1] then
    if ours then redis.call('HDEL', in_flight, message.in_flight) end
    fair.dropped = fair.dropped + 1
  elseif stream then
    push(stream, ours and message.in_flight or '', message.fields)
    moved = moved + 1
  elseif allowed[message.stream] then
    local entry = redis.call('XADD', message.stream, '*', unpack(message.fields))
    if ours then redis.call('HSET', in_flight, message.in_flight, message.stream .. ' ' .. entry) end
    moved = moved + 1
  else
    return false
  end
  return true
end
local function move(id)
  local text = redis.call('HGET', messages, id)
  if text then
    local message = parse(text)
    if not message then
      give_up_on(schedule, id, '', id, text)
    elseif not publish(id, message) then
      return false
    end
  end
  redis.call('ZREM', schedule, id)
  redis.call('HDEL', messages, id)
  return true
end
repeat
  page = redis.call('ZRANGEBYSCORE', schedule, '-inf', now_ms, 'LIMIT', left, most)
  for _, id in ipairs(page) do
    if not move(id) then left = left + 1 end
  end
until #page < most or moved + fair.dropped + fair.malformed > 0

-- Each call repairs a little of what a lost key, a manually deleted entry or a changed cap has left inconsistent.
local function repair_ring(stream)
  if not stream.some then return end
  if redis.call('ZCARD', stream.ring) == 0 then
    local found = redis.call('HRANDFIELD', stream.waiting, 100, 'WITHVALUES')
    for i = 1, #found, 2 do
      local member, value = found[i], found[i + 1]
      local tenant = string.match(member, '^(.*)%.%d+$') or (string.match(value, '^%d+ %d+$') and member)
      if tenant then
        redis.call('ZADD', stream.ring, 'NX', next_turn(stream), tenant)
      else
        give_up_on(stream.waiting, member, '', '', value)
        redis.call('HDEL', stream.waiting, member)
      end
    end
  end
  local capped = redis.call('ZCOUNT', stream.ring, '+inf', '+inf')
  local from = capped > 20 and now[2] % capped or 0
  for _, tenant in ipairs(redis.call('ZRANGEBYSCORE', stream.ring, '+inf', '+inf', 'LIMIT', from, 20)) do
    if below_cap(stream.topic, tenant) then rejoin_ring(stream, tenant) end
  end
end
local function repair_running(topic)
  local length = 0
  for _, stream in ipairs(topic.streams) do length = length + redis.call('XLEN', stream.key) end
  if redis.call('ZCARD', topic.running) == length then return end
  for _, stream in ipairs(topic.streams) do
    -- The oldest entries, which are the running ones.
    for _, entry in ipairs(redis.call('XRANGE', stream.key, '-', '+', 'COUNT', 100)) do
      redis.call('ZADD', topic.running, 0, field_of(entry[2], 'tenant') .. ' ' .. stream.key .. ' ' .. entry[1])
    end
  end
  for _, member in ipairs(redis.call('ZRANDMEMBER', topic.running, 100)) do
    local key, id = string.match(member, '(%S+) (%S+)$')
    local stream = fair.of[key]
    if not stream or #redis.pcall('XRANGE', key, id, id) == 0 then redis.call('ZREM', topic.running, member) end
  end
  topic.counts = {}
end
local waiting = {}
for _, topic in ipairs(fair.topics) do
  if topic.cap > 0 then repair_running(topic) end
  for _, stream in ipairs(topic.streams) do repair_ring(stream) end
  moved = moved + refill(topic, most)
  for _, stream in ipairs(topic.streams) do waiting[#waiting + 1] = waiting_of(stream) end
end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', redis_time_s())
local next_due = tonumber(redis.call('ZRANGE', schedule, 0, 0, 'WITHSCORES')[2] or 0)
next_due = string.format('%d', math.max(0, math.min(next_due, 2 ^ 53)))
return {moved, next_due, fair.dropped, now_ms, fair.malformed, unpack(waiting)}
