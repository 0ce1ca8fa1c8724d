#!lua flags=allow-oom
-- republish: publish a step again, but only if its latest message no longer exists.
--
-- KEYS[1] in-flight index   KEYS[2] schedule   KEYS[3] stream to publish to   KEYS[4] ended runs
-- KEYS[5..] keys of the stream's topic, see fairness.lua, then other streams that may hold the message
-- ARGV    in-flight field, mode (check | claim | publish), fields, (name, value)* (0 fields unless publish), topic limits
-- Returns exists, missing (check, claim) or published (publish). Check and publish are one script, so that two reconcilers
-- publish once.
-- A claim sets the in-flight field to an entry id that cannot exist, 0-<seconds of the claim>, until the step is published.
-- Meanwhile `publish_once` in complete.lua does not repeat an older message: it would publish an attempt that the
-- reconciler is about to replace, and both would run. If a reconciler dies in between, the next one or `prune` continues.
--@include lease.lua
--@include fairness.lua
local in_flight, field, mode, count = KEYS[1], ARGV[1], ARGV[2], number(ARGV[3], 'fields')
local fields = {}
for i = 1, 2 * count do fields[i] = ARGV[3 + i] end
read_fairness(4 + 2 * count, in_flight)
local target = fair.of[KEYS[3]]
if not target then error({err = 'ERR republish: the stream is not among the described ones'}) end

local named = redis.call('HGET', in_flight, field)
if named then
  local key, id = string.match(named, '^(%S+) (%S+)$')
  if key == KEYS[2] then
    if redis.call('ZSCORE', key, id) then return 'exists' end
  else
    for _, stream in ipairs(target.topic.streams) do
      if stream.waiting == key and redis.call('HEXISTS', key, id) == 1 then return 'exists' end
    end
    for i = 3, #KEYS do
      if KEYS[i] == key and #redis.pcall('XRANGE', key, id, id) > 0 then return 'exists' end
    end
  end
end
if mode == 'claim' then set_in_flight(field, target.key .. ' 0-' .. redis.call('TIME')[1]) end
if mode ~= 'publish' then return 'missing' end
push(target, field, fields)
refill_touched(8)
return 'published'
