#!lua flags=allow-oom
-- renew: extend the leases of running entries. The delivery count does not change.
--
-- KEYS  streams, then cancel markers of tasks
-- ARGV  group, consumer, count, then per entry: key index, entry id, delivery
--       then per step of a task: number of its entry, marker key index, tenant
-- Returns valid, cancelled, stale or gone per entry, in order. For anything but valid the caller must stop the handler.
-- cancelled: the marker holds this tenant. The lease is not extended, and `complete` removes the entry.
--@include lease.lua
local group, consumer = ARGV[1], ARGV[2]
local count = number(ARGV[3], 'count')
local marker_of, markers = {}, {}
for at = 4 + 3 * count, #ARGV, 3 do
  local entry, key, tenant = number(ARGV[at], 'entry'), KEYS[number(ARGV[at + 1], 'marker key index')], ARGV[at + 2]
  if not (key and tenant) then error({err = 'ERR renew: a marker without its key or tenant'}) end
  markers[#markers + 1] = key
  marker_of[entry] = {at = #markers, tenant = tenant}
end
local holders = #markers > 0 and redis.call('MGET', unpack(markers)) or {}
local answers = {}
for i = 1, count do
  local at = 3 * i + 1
  local key, id = KEYS[number(ARGV[at], 'key index')], ARGV[at + 1]
  local answer, marker = lease_status(key, group, consumer, id, number(ARGV[at + 2], 'delivery')), marker_of[i]
  if answer == 'valid' then
    if marker and holders[marker.at] == marker.tenant then
      answer = 'cancelled'
    else
      redis.call('XCLAIM', key, group, consumer, 0, id, 'JUSTID')
    end
  end
  answers[i] = answer
end
return answers
