#!lua flags=allow-oom
-- claim: reclaim entries that were released or whose lease has expired; at the delivery cap turn them into dead letters.
--
-- KEYS[1] source stream   KEYS[2] dead letters   KEYS[3] steps.done   KEYS[4] in-flight index   KEYS[5] ended runs
-- KEYS[6..] see fairness.lua
--         (ingest streams are outside the lanes and pass KEYS[1] and KEYS[2] only, see below)
-- ARGV    group, consumer, lease in ms, cap on deliveries (0: none), maximum number of entries, time as RFC 3339,
--         delivery from which an entry is a suspect, maximum number of entries that began before and are no suspects,
--         maximum number of suspects, whether a last delivery may be among them (1 or 0)
--         (with cap 0 these four are not used),
--         then, for a topic with a window or a cap, its limits, see fairness.lua
-- Returns {claimed, dead, ended}: claimed is a list of {entry id, delivery, {name, value, ...}}, dead and ended are lists of
-- entry ids. `ended`: steps of ended runs (see ended_runs.lua), which are removed; they become no dead letters.
--
-- An entry that was delivered to several workers may have killed them: it is a suspect, and the caller isolates it. The two
-- maxima keep one crash's entries from taking all slots of a consumer, and its suspects from stopping it.
-- A last delivery is not claimed together with entries that began before, nor while such entries run in the caller: if one
-- of them killed the worker, the other would be at its cap without having run alone.
-- Every reclaim counts as a delivery. Any consumer that finds an entry at its cap turns it into a dead letter, so a message
-- that kills its workers ends even if no worker can run it.
-- The body is kept unchanged in the field `original`. Fields that other writers may have set are cleaned before they are
-- put into JSON. Ingest passes cap 0, because an entry that has not passed admission must be redacted first: the caller
-- gets it with its delivery count and decides.
--@include fairness.lua
local key, dead_key, done_key, in_flight, ended_runs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, consumer = ARGV[1], ARGV[2]
local lease, cap, most, now = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local suspect_from, most_started, most_suspects = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local allow_last = ARGV[10]
if not (lease and cap and most and now and suspect_from and most_started and most_suspects and allow_last) then
  error({err = 'ERR claim: missing or wrong arguments'})
end
if #ARGV > 10 then read_fairness(11, in_flight) end

local function is_of_ended_run(fields)
  local id = ended_runs and field_of(fields, 'id') or ''
  if field_of(fields, 'type') ~= 'step.requested.v1' then return false end
  return which_ended(ended_runs, {{run_in(id), field_of(fields, 'tenant')}})[1]
end

local function remove(id, fields)
  local field = string.match(field_of(fields, 'id'), '^(.*)%.%d+$')
  if field and redis.call('HGET', in_flight, field) == key .. ' ' .. id then redis.call('HDEL', in_flight, field) end
  redis.call('XACK', key, group, id)
  redis.call('XDEL', key, id)
  if fair.of[key] then leave(fair.of[key], field_of(fields, 'tenant'), id) end
end

local dead, ended = {}, {}
local function give_up(id, last_consumer, deliveries)
  local found = redis.call('XRANGE', key, id, id)[1]
  if found and is_of_ended_run(found[2]) then
    ended[#ended + 1] = id
    return remove(id, found[2])
  end
  if found then
    local names = {}
    for i = 1, #found[2], 2 do names[found[2][i]] = found[2][i + 1] end
    local body = names.body or ''
    local why = 'delivered ' .. deliveries .. ' times without an end; the last worker was ' .. clean(last_consumer)
    local step = {string.match(names.id or '', '^(l%d+%-%w+)%.(%d+)%.([a-z][a-z0-9_-]*)%.(%d+)%.(%d+)$')}
    add_dead_letter(dead_key, {
      reason = 'deliveries_exhausted', message = why, stream = key, group = group, entry = id,
      consumer = clean(last_consumer), delivery = deliveries, at = now}, names, body)
    if names.type == 'step.requested.v1' and step[1] and done_key then
      local field = step[1] .. '.' .. step[2] .. '.' .. step[3] .. '.' .. step[4]
      local arm = string.match(key, ':arm%.([a-z0-9_-]+)') or 'unknown'
      local done = redis.call('XADD', done_key, '*', 'type', 'step.done.v1', 'id', names.id,
        'tenant', clean(names.tenant), 'traceparent', clean(names.traceparent), 'body', cjson.encode({
          outcome = 'dead', task = step[1], run = tonumber(step[2]), step = step[3], round = tonumber(step[4]),
          attempt = tonumber(step[5]), tenant = clean(names.tenant), arm = arm, worker = clean(last_consumer),
          delivery = deliveries, finished_at = now, duration_ms = 0, reason = 'deliveries_exhausted',
          error = {code = 'deliveries_exhausted', message = why}}))
      redis.call('HSET', in_flight, field, done_key .. ' ' .. done)
    elseif names.type == 'step.done.v1' and step[1] and in_flight then
      -- As in `complete`: nothing is in flight for this step any longer.
      local field = step[1] .. '.' .. step[2] .. '.' .. step[3] .. '.' .. step[4]
      if redis.call('HGET', in_flight, field) == key .. ' ' .. id then redis.call('HDEL', in_flight, field) end
    end
  end
  redis.call('XACK', key, group, id)
  redis.call('XDEL', key, id)
  if found and fair.of[key] then leave(fair.of[key], field_of(found[2], 'tenant'), id) end
  dead[#dead + 1] = id
end

local claimed = {}
-- More than may be claimed: entries of one sort must not hide those of another.
local look = math.max(most, 100)
local candidates = {}
local function collect(pending)
  if pending.err then return end
  for _, entry in ipairs(pending) do candidates[#candidates + 1] = entry end
end
collect(redis.pcall('XPENDING', key, group, '-', '+', look, 'released'))
collect(redis.pcall('XPENDING', key, group, 'IDLE', lease, '-', '+', look))

-- Whether one more entry with this delivery may be claimed. Counts it.
local began_before = false
local function permitted(delivery)
  if #claimed >= most then return false end
  if cap == 0 or delivery == 1 then return true end
  if delivery >= cap then
    if allow_last ~= '1' or most_suspects == 0 or began_before then return false end
    most_started, most_suspects = 0, 0
  elseif delivery >= suspect_from then
    if most_suspects == 0 then return false end
    most_suspects = most_suspects - 1
  else
    if most_started == 0 then return false end
    most_started = most_started - 1
  end
  began_before = true
  return true
end

local seen = {}
for _, entry in ipairs(candidates) do
  local id, holder, deliveries = entry[1], entry[2], entry[4]
  if not seen[id] then
    seen[id] = true
    if cap > 0 and deliveries >= cap then
      give_up(id, holder, deliveries)
    elseif permitted(deliveries + 1) then
      local taken = redis.call('XCLAIM', key, group, consumer, 0, id)[1]
      if taken and is_of_ended_run(taken[2]) then
        ended[#ended + 1] = id
        remove(id, taken[2])
      elseif taken then
        claimed[#claimed + 1] = {id, deliveries + 1, taken[2]}
      end
    end
  end
end
refill_touched(2 * (#dead + #ended))
return {claimed, dead, ended}
