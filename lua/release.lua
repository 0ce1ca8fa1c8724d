#!lua flags=allow-oom
-- release: return entries that were read but not started, so that any consumer can claim them at once.
-- They are assigned to the pseudo consumer `released`, and their delivery count is restored, because nobody tried them.
--
-- KEYS  streams      ARGV  group, consumer, count, then per entry: key index, entry id, delivery
-- Returns released, stale or gone per entry, in order.
--@include lease.lua
local group, consumer = ARGV[1], ARGV[2]
local answers = {}
for i = 1, number(ARGV[3], 'count') do
  local at = 3 * i + 1
  local key, id, delivery = KEYS[number(ARGV[at], 'key index')], ARGV[at + 1], number(ARGV[at + 2], 'delivery')
  local answer = lease_status(key, group, consumer, id, delivery)
  if answer == 'valid' then
    redis.call('XCLAIM', key, group, 'released', 0, id, 'JUSTID', 'RETRYCOUNT', math.max(delivery - 1, 0))
    answer = 'released'
  end
  answers[i] = answer
end
return answers
