#!lua flags=allow-oom
-- renew: keep the leases of entries that are being worked on. The delivery count stays as it is.
--
-- KEYS  streams      ARGV  group, consumer, count, then per entry: key index, entry id, delivery
-- Answers held, stale or gone per entry, in order. Whoever gets stale or gone must stop that handler.
--@include ownership.lua
local group, consumer = ARGV[1], ARGV[2]
local answers = {}
for i = 1, number(ARGV[3], 'count') do
  local at = 3 * i + 1
  local key, id = KEYS[number(ARGV[at], 'key index')], ARGV[at + 1]
  local answer = standing(key, group, consumer, id, number(ARGV[at + 2], 'delivery'))
  if answer == 'held' then redis.call('XCLAIM', key, group, consumer, 0, id, 'JUSTID') end
  answers[i] = answer
end
return answers
