#!lua flags=allow-oom
-- promote: move due messages from the schedule to their streams, each once.
--
-- KEYS[1] hash of live steps   KEYS[2] schedule (message id by due time in ms)
-- KEYS[3] messages (message id -> JSON of stream, live field and fields)   KEYS[4..] the streams they may go to
-- ARGV    how many at most
-- Answers {moved, due time in ms of the next one or 0}.
local most = tonumber(ARGV[1])
if not most then error({err = 'ERR promote: how many is not a number'}) end
local live, schedule, messages = KEYS[1], KEYS[2], KEYS[3]
local allowed = {}
for i = 4, #KEYS do allowed[KEYS[i]] = true end
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

-- A stream this caller does not know belongs to a newer topology: leave it for a caller who does, and look past it, or
-- enough of them would hold up everything else for good.
local moved, left, page = 0, 0, nil
local function move(id)
  local text = redis.call('HGET', messages, id)
  if text then
    local message = cjson.decode(text)
    if not allowed[message.stream] then return false end
    local entry = redis.call('XADD', message.stream, '*', unpack(message.fields))
    if message.live ~= '' and redis.call('HGET', live, message.live) == schedule .. ' ' .. id then
      redis.call('HSET', live, message.live, message.stream .. ' ' .. entry)
    end
    moved = moved + 1
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
until #page < most or moved > 0
local next_due = redis.call('ZRANGE', schedule, 0, 0, 'WITHSCORES')[2]
return {moved, next_due or '0'}
