#!lua flags=allow-oom
-- promote: move due messages from the schedule to their streams, each once; drop the steps of cancelled tasks.
--
-- KEYS[1] hash of live steps   KEYS[2] schedule (message id by due time in ms)
-- KEYS[3] messages (message id -> JSON of stream, live field and fields)
-- KEYS[4..] the streams they may go to, then markers of tasks
-- ARGV    how many at most, how many streams, then per step asked about before: message id, marker key index
-- Answers {moved, due time in ms of the next one or 0, message ids of steps to be given with their markers, dropped}.
--
-- Which steps are due is known only in here, and markers must be in KEYS: a due step whose marker is not is answered,
-- and the caller calls again with it. While nothing is due that is one call.
local most, streams = tonumber(ARGV[1]), tonumber(ARGV[2])
if not (most and streams) then error({err = 'ERR promote: how many is not a number'}) end
local live, schedule, messages = KEYS[1], KEYS[2], KEYS[3]
local allowed, marker_of = {}, {}
for i = 4, 3 + streams do allowed[KEYS[i]] = true end
for at = 3, #ARGV, 2 do
  marker_of[ARGV[at]] = KEYS[tonumber(ARGV[at + 1]) or 0]
  if not marker_of[ARGV[at]] then error({err = 'ERR promote: no such marker key'}) end
end
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

local function tenant_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'tenant' then return fields[i + 1] end
  end
end
-- A stream this caller does not know belongs to a newer topology: leave it for a caller who does, and look past it, or
-- enough of them would hold up everything else for good.
local moved, dropped, left, asked, page = 0, 0, 0, {}, nil
local function move(id)
  local text = redis.call('HGET', messages, id)
  if text then
    local message = cjson.decode(text)
    if not allowed[message.stream] then return false end
    local ours = message.live ~= '' and redis.call('HGET', live, message.live) == schedule .. ' ' .. id
    local marker = marker_of[id]
    if not marker and string.match(id, '^[^.]+%.%d+%.[^.]+%.%d+%.%d+$') then
      asked[#asked + 1] = id
      return false
    end
    if marker and redis.pcall('GET', marker) == tenant_of(message.fields) then
      if ours then redis.call('HDEL', live, message.live) end
      dropped = dropped + 1
    else
      local entry = redis.call('XADD', message.stream, '*', unpack(message.fields))
      if ours then redis.call('HSET', live, message.live, message.stream .. ' ' .. entry) end
      moved = moved + 1
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
until #page < most or moved + dropped > 0 or #asked > 0
local next_due = redis.call('ZRANGE', schedule, 0, 0, 'WITHSCORES')[2]
return {moved, next_due or '0', asked, dropped}
