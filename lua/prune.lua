#!lua flags=allow-oom
-- prune: take names from the in-flight index whose message is nowhere any more, as after its stream was deleted.
-- What would have finished such a message is what takes its name, so the name would stay for ever. Such a name says no
-- more than no name at all, `republish` treats the two alike; but what it claimed lately it is about to send.
--
-- KEYS[1] in-flight index   KEYS[2..] all places where a message may lie: the schedule, streams, what waits for them
-- ARGV    cursor, about how many names to look at
-- Answers {next cursor, pruned}. What is named on a key that is not among these is left alone.
--@include lease.lua
local CLAIM_S = 300  -- no sweeper is that long about it
local in_flight, count, kind = KEYS[1], number(ARGV[2], 'count'), {}
local latest = redis.call('TIME')[1] - CLAIM_S
for i = 2, #KEYS do kind[KEYS[i]] = redis.call('TYPE', KEYS[i]).ok end
local function lies(key, id)
  if kind[key] == 'stream' then return #redis.pcall('XRANGE', key, id, id) > 0 end
  if kind[key] == 'hash' then return redis.call('HEXISTS', key, id) == 1 end
  return kind[key] == 'zset' and redis.call('ZSCORE', key, id)
end

local page, lost = redis.call('HSCAN', in_flight, ARGV[1], 'COUNT', count), {}
for i = 1, #page[2], 2 do
  local key, id = string.match(page[2][i + 1], '^(%S+) (%S+)$')
  local claimed_at = tonumber(id and string.match(id, '^0%-(%d+)$') or 0)
  if key and kind[key] and claimed_at < latest and not lies(key, id) then lost[#lost + 1] = page[2][i] end
end
for _, name in ipairs(lost) do redis.call('HDEL', in_flight, name) end
return {page[1], #lost}
