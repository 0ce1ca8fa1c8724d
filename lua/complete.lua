#!lua flags=allow-oom
-- complete: finish entries and publish what follows from them, each entry all or nothing.
--
-- KEYS[1]  in-flight index: <task>.<run>.<step>.<round> -> "<key> <entry id or message id>"
-- KEYS[n]  every other key that ARGV names by its index n
-- ARGV     consumer, count, then per entry:
--            source key index, group, entry id, delivery, in-flight field ('' for none), operations,
--            then per operation one of
--              'publish'          key index, in-flight field ('' for none), fields, (name, value)*
--              'publish_once'     the same, but does nothing if the in-flight field already names a message. For a repeat
--                                 by a caller that does not know whether the first call was executed.
--              'schedule'         schedule key index, messages key index, stream key index, delay in ms, in-flight field,
--                                 message id, fields, (name, value)*
--              'set_status'       key index, version, time to live in s (0: none), fields, (name, value)*
--              'append_event'     key index, maximum length, fields, (name, value)*
--              'end_run'          key index of the ended runs, key index of the control channel, run, tenant, time to live
--                                 in s: no step of this run is started, completed or renewed from now on
--              'unless_ended'     key index of the ended runs, run, tenant: if the run has ended, the entry is removed,
--                                 nothing is published, and the result is run_ended
--              'only_if_ended'    the same, but an entry of a run that has not ended is left as it is (result: valid)
--          A source key index of 0 stands for no entry: the operations are executed and nothing is finished.
--          At the end, if topics with a window or a cap are involved: their limits, see fairness.lua
-- Returns done, run_ended, valid, stale or gone per entry, in order.
--
-- All arguments are parsed and the type of every key is checked before the first write, because Lua has no rollback.
-- XADD comes before XACK and XDEL, so that an error leaves the entry pending and nothing is lost. Commands that accept many
-- entries are called once at the end, because a command costs more than its work.
-- The in-flight field of an entry is removed only while it names this entry, also if the entry itself no longer exists;
-- 'publish' and 'schedule' set the field of what they write.
-- A message for a topic with limits may be queued. About two queued messages are dispatched per finished entry, so that a
-- call stays short and a single tenant is never held up.
-- A status replaces the whole earlier one, and only if its version is higher, so that a late writer changes nothing. It is also
-- written for an entry that is gone: the consumer that finished the entry had committed the same status.
-- The status of a task that has ended also removes it from the lane's open tasks, see open_tasks.lua.
--@include lease.lua
--@include fairness.lua
--@include open_tasks.lua
local KEYS, ARGV = KEYS, ARGV
local at, last = 0, #ARGV
local function take(what)
  at = at + 1
  local value = ARGV[at]
  if value == nil then error({err = 'ERR missing argument: ' .. what}) end
  return value
end
local function take_number(what, most) return number(take(what), what, most) end
local kind_of = {}
-- `other`: another type that it may have.
local function take_key(what, kind, other)
  local key = KEYS[take_number(what)]
  if not key then error({err = 'ERR no such key index: ' .. what}) end
  local known = kind_of[key]
  if not known then
    known = redis.call('TYPE', key).ok
    kind_of[key] = known
  end
  if known ~= 'none' and known ~= kind and known ~= other then
    error({err = 'WRONGTYPE ' .. key .. ' is a ' .. known .. ', not a ' .. kind})
  end
  return key
end
local function take_fields()
  local many, fields = 2 * take_number('fields'), {}
  if at + many > last then error({err = 'ERR missing argument: field'}) end
  for i = 1, many do fields[i] = ARGV[at + i] end
  at = at + many
  return fields
end

local in_flight = KEYS[1]
local runs, ended_runs = {}, nil
local function take_run(name)
  ended_runs = take_key('ended runs key', 'zset')
  local run, tenant = take('run'), take('tenant')
  runs[#runs + 1] = {run, tenant}
  return {at = #runs, tenant = tenant, only = name == 'only_if_ended'}
end
local function take_publish()
  return {key = take_key('publish key', 'stream'), in_flight = take('in-flight field'), fields = take_fields()}
end
local parse = {
  publish = take_publish,
  publish_once = take_publish,
  schedule = function()
    return {
      key = take_key('schedule key', 'zset'), messages = take_key('messages key', 'hash'),
      stream = take_key('stream key', 'stream'), ms = take_number('schedule'), in_flight = take('in-flight field'),
      id = take('message id'), fields = take_fields(),
    }
  end,
  set_status = function()
    local key, version = take_key('status key', 'hash', 'string'), take_number('version')
    return {key = key, version = version, ttl = take_number('ttl', MAX_TTL_S), fields = take_fields()}
  end,
  end_run = function()
    local op = {key = take_key('ended runs key', 'zset'), control = KEYS[take_number('control channel')], run = take('run'),
                tenant = take('tenant'), ttl = take_number('ttl', MAX_TTL_S)}
    if not op.control then error({err = 'ERR no such key index: control channel'}) end
    return op
  end,
  append_event = function()
    return {key = take_key('event key', 'stream'), maxlen = take_number('maximum length'), fields = take_fields()}
  end,
}

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
-- A task that has ended is no longer open. The keys are in the lane of the in-flight index; usually they do not exist.
local lane = string.match(in_flight, '^{[^}]*}:') or ''
local open_tasks, owners_key, any_open = lane .. 'open-tasks', lane .. 'open-tasks:owners', nil
local has_ended = {succeeded = true, failed = true, rejected = true, cancelled = true, expired = true}
local function close_if_ended(fields)
  if not has_ended[field_of(fields, 'state')] then return end
  if any_open == nil then any_open = redis.call('EXISTS', open_tasks) == 1 end
  if any_open then close_tasks(open_tasks, owners_key, {field_of(fields, 'task')}) end
end
local apply = {
  publish = function(op)
    if fair.of[op.key] then return push(fair.of[op.key], op.in_flight, op.fields) end
    local id = redis.call('XADD', op.key, '*', unpack(op.fields))
    if op.in_flight ~= '' then set_in_flight(op.in_flight, op.key .. ' ' .. id) end
  end,
  schedule = function(op)
    redis.call('HSET', op.messages, op.id, cjson.encode({stream = op.stream, in_flight = op.in_flight, fields = op.fields}))
    redis.call('ZADD', op.key, now_ms + op.ms, op.id)
    if op.in_flight ~= '' then set_in_flight(op.in_flight, op.key .. ' ' .. op.id) end
  end,
  set_status = function(op)
    -- A string is the status of the admission, whose version is the lowest.
    local version = redis.pcall('HGET', op.key, 'version')
    local known = type(version) == 'string' and string.match(version, '^%d+$')
    if known and #known < 16 and tonumber(known) >= op.version then return end
    redis.call('DEL', op.key)
    redis.call('HSET', op.key, 'version', string.format('%d', op.version), unpack(op.fields))
    if op.ttl > 0 then redis.call('EXPIRE', op.key, op.ttl) end
    close_if_ended(op.fields)
  end,
  end_run = function(op) end_run(op.key, op.control, op.run, op.tenant, op.ttl) end,
  append_event = function(op)
    redis.call('XADD', op.key, 'MAXLEN', '~', op.maxlen, '*', unpack(op.fields))
  end,
}

function apply.publish_once(op)
  if not (fair.renamed[op.in_flight] or redis.call('HEXISTS', in_flight, op.in_flight) == 1) then apply.publish(op) end
end

local consumer = take('consumer')
local entries = {}
for i = 1, take_number('count') do
  local detached = ARGV[at + 1] == '0'
  local entry = {
    detached = detached, key = detached and take('source key') or take_key('source key', 'stream'),
    group = take('group'), id = take('entry id'),
    delivery = take_number('delivery'), in_flight = take('in-flight field'), ops = {},
  }
  for j = 1, take_number('operations') do
    local name = take('operation')
    if name == 'unless_ended' or name == 'only_if_ended' then
      entry.run = take_run(name)
    else
      if not parse[name] then error({err = 'ERR unknown operation: ' .. name}) end
      local op = parse[name]()
      op.name = name
      entry.ops[#entry.ops + 1] = op
    end
  end
  entries[i] = entry
end
if at ~= last then read_fairness(at + 1, in_flight) end
defer_in_flight(in_flight)

-- Read with one command for all steps of the batch.
local ended = ended_runs and which_ended(ended_runs, runs) or {}

-- If many entries of a stream are finished, list this consumer's leases once. Entries that are not listed are checked one
-- by one.
local sources = {}
for _, entry in ipairs(entries) do
  local name = entry.key .. ' ' .. entry.group
  local source = sources[name]
  if not source then
    source = {key = entry.key, group = entry.group, entries = 0, finished = {}, seen = {}}
    sources[name], sources[#sources + 1] = source, source
  end
  entry.source, source.entries = source, source.entries + 1
end
local function deliveries(source)
  local found, most = {}, 2 * source.entries + 16
  local pending = source.entries < 4 and {} or redis.pcall('XPENDING', source.key, source.group, '-', '+', most, consumer)
  for i = 1, pending.err and 0 or #pending do found[pending[i][1]] = pending[i][4] end
  return found
end
local function check(entry)
  if entry.detached then return 'detached' end
  local source = entry.source
  if source.seen[entry.id] then return 'gone' end
  source.leases = source.leases or deliveries(source)
  local answer = 'valid'
  if source.leases[entry.id] ~= entry.delivery then
    answer = lease_status(entry.key, entry.group, consumer, entry.id, entry.delivery)
  end
  if answer == 'valid' and entry.run and ended[entry.run.at] then return 'run_ended' end
  if answer == 'valid' and not (entry.run and entry.run.only) then return 'done' end
  return answer
end

local function finish(entry)
  local source = entry.source
  source.seen[entry.id] = true
  source.finished[#source.finished + 1] = entry.id
  if entry.in_flight ~= '' then clear_in_flight(entry.in_flight, entry.key .. ' ' .. entry.id) end
  if fair.of[entry.key] then leave(fair.of[entry.key], entry.run and entry.run.tenant, entry.id) end
end
local function flush()
  write_in_flight()
  for _, source in ipairs(sources) do
    if #source.finished > 0 then
      redis.call('XACK', source.key, source.group, unpack(source.finished))
      redis.call('XDEL', source.key, unpack(source.finished))
    end
  end
end

local answers = {}
local function process(i)
  local entry = entries[i]
  local answer = check(entry)
  if answer == 'done' or answer == 'detached' then
    for _, op in ipairs(entry.ops) do apply[op.name](op) end
  end
  if answer == 'done' or answer == 'run_ended' then finish(entry) end
  if answer == 'gone' then
    -- What the handler has committed is valid, and a known status changes nothing.
    for _, op in ipairs(entry.ops) do
      if op.name == 'set_status' then apply.set_status(op) end
    end
    -- Deleted with its stream while it was running: nothing else would remove it from the in-flight index.
    if entry.in_flight ~= '' and #redis.call('XRANGE', entry.key, entry.id, entry.id) == 0 then
      clear_in_flight(entry.in_flight, entry.key .. ' ' .. entry.id)
    end
  end
  answers[i] = answer == 'detached' and 'done' or answer
end
for i = 1, #entries do
  local fine, failure = pcall(process, i)
  if not fine then
    flush()
    error(failure)
  end
end
flush()
refill_touched(2 * #entries + 16)
return answers
