#!lua flags=allow-oom
-- renew: extend the leases of running entries. The delivery count does not change.
--
-- KEYS  streams, and the sorted set of ended runs
-- ARGV  group, consumer, count, then per entry: key index, entry id, delivery
--       then per step: number of its entry, key index of the ended runs, run, tenant
-- Returns valid, run_ended, stale or gone per entry, in order. For anything but valid the caller must stop the handler.
-- run_ended: the lease is not extended, and `complete` removes the entry.
--@include lease.lua
--@include ended_runs.lua
local group, consumer = ARGV[1], ARGV[2]
local count = number(ARGV[3], 'count')
local runs, ended_runs = {}, nil
for i = 1, count do runs[i] = {} end
for at = 4 + 3 * count, #ARGV, 4 do
  local entry, key = number(ARGV[at], 'entry'), KEYS[number(ARGV[at + 1], 'key index of the ended runs')]
  local run, tenant = ARGV[at + 2], ARGV[at + 3]
  if not (key and run and tenant and runs[entry]) then error({err = 'ERR renew: a step without its run or tenant'}) end
  ended_runs, runs[entry] = key, {run, tenant}
end
local ended = ended_runs and which_ended(ended_runs, runs) or {}
local answers = {}
for i = 1, count do
  local at = 3 * i + 1
  local key, id = KEYS[number(ARGV[at], 'key index')], ARGV[at + 1]
  local answer = lease_status(key, group, consumer, id, number(ARGV[at + 2], 'delivery'))
  if answer == 'valid' then
    if ended[i] then
      answer = 'run_ended'
    else
      redis.call('XCLAIM', key, group, consumer, 0, id, 'JUSTID')
    end
  end
  answers[i] = answer
end
return answers
