#!lua
-- executing: count the steps that a worker works on right now.
-- Only an entry that a worker has read is executed. A step that waits on a stream, in a queue or on the schedule is not.
--
-- KEYS[1] in-flight index   KEYS[2..] streams of arms
-- ARGV    consumer group of each stream, then in-flight fields
-- Returns how many of the fields name an entry that a worker holds.
local group_of, fields, count = {}, {}, 0
for i = 2, #KEYS do group_of[KEYS[i]] = ARGV[i - 1] end
for i = #KEYS, #ARGV do fields[#fields + 1] = ARGV[i] end
for first = 1, #fields, 1000 do
  local named = redis.call('HMGET', KEYS[1], unpack(fields, first, math.min(first + 999, #fields)))
  for _, value in ipairs(named) do
    local key, id = string.match(value or '', '^(%S+) (%S+)$')
    if key and group_of[key] then
      local pending = redis.pcall('XPENDING', key, group_of[key], id, id, 1)
      if not pending.err and #pending > 0 and pending[1][2] ~= 'released' then count = count + 1 end
    end
  end
end
return count
