#!lua flags=allow-oom
-- prune: remove fields from the in-flight index whose message no longer exists, for instance after its stream was deleted.
-- Such a field would stay for ever, because only finishing the message removes it. It means the same as no field:
-- `republish` treats both alike. Fields that `republish` has claimed recently are kept, since it is about to publish.
--
-- KEYS[1] in-flight index   KEYS[2..] every place where a message may be: the schedule, streams and their queues
-- ARGV    cursor, approximate number of fields to examine
-- Returns {next cursor, pruned}. A field that names any other key is left unchanged.
--@include lease.lua
local CLAIM_S = 300  -- longer than any reconciler takes to publish
local in_flight, count, kind = KEYS[1], number(ARGV[2], 'count'), {}
local latest = redis.call('TIME')[1] - CLAIM_S
for i = 2, #KEYS do kind[KEYS[i]] = redis.call('TYPE', KEYS[i]).ok end
local function exists(key, id)
  if kind[key] == 'stream' then return #redis.pcall('XRANGE', key, id, id) > 0 end
  if kind[key] == 'hash' then return redis.call('HEXISTS', key, id) == 1 end
  return kind[key] == 'zset' and redis.call('ZSCORE', key, id)
end

local page, lost = redis.call('HSCAN', in_flight, ARGV[1], 'COUNT', count), {}
for i = 1, #page[2], 2 do
  local key, id = string.match(page[2][i + 1], '^(%S+) (%S+)$')
  local claimed_at = tonumber(id and string.match(id, '^0%-(%d+)$') or 0)
  if key and kind[key] and claimed_at < latest and not exists(key, id) then lost[#lost + 1] = page[2][i] end
end
for _, name in ipairs(lost) do redis.call('HDEL', in_flight, name) end
return {page[1], #lost}
