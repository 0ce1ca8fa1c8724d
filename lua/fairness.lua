-- Shared by admit, claim, complete, promote and republish; the loader inserts it at `--@include fairness.lua`.
-- Decides whether a message is published or queued, and dispatches queued messages to streams, one tenant after another.
--
-- Keys of each stream S of a topic with priorities:
--   S           the stream. `ready` are its entries that were not read yet; beyond `window` of them messages are queued.
--   S:waiting   hash: <tenant> -> "<first> <next>", the numbers in its queue, and <tenant>.<number> -> message
--   S:ring      sorted set: each tenant with a queue, the next one first; score inf: the tenant is at its cap
-- and of each topic T:
--   T:running   sorted set of "<tenant> <stream> <entry>" with score 0: a tenant's entries on the topic's streams, running
--               or not. Only maintained for a topic with a cap.
--
-- `ready` is derived from the stream (its length minus the group's pending entries) instead of stored, so that it is right
-- whatever happens to the stream.
--
-- A queued message that cannot be read becomes a dead letter.
--
-- read_fairness(at) parses the end of ARGV, from `at`: key index of the ended runs, key index of the dead letters, number of
-- topics, then per topic
--   index of its first key, number of streams, window (0: none), cap (0: none), group
-- The keys of a topic are adjacent in KEYS: T:running, then per stream S, S:waiting, S:ring. Types are checked here, before
-- the first write.
--@include ended_runs.lua
--@include dead_letters.lua
local fair = {of = {}, topics = {}, dropped = 0, malformed = 0}

-- Records which message of a step is in flight: at once, or in `complete` together with all others of the call.
local function set_in_flight(field, value)
  if not fair.names then return redis.call('HSET', fair.in_flight, field, value) end
  local names = fair.names
  names[#names + 1] = field
  names[#names + 1] = value
  fair.renamed[field] = true
end
local function defer_in_flight(in_flight) fair.in_flight, fair.names, fair.renamed, fair.unnamed = in_flight, {}, {}, {} end
-- Removes the field at the end of the call if it still holds this value.
local function clear_in_flight(field, value)
  if fair.renamed[field] then return end
  local unnamed = fair.unnamed
  unnamed[#unnamed + 1] = {field, value}
end
local function write_in_flight()
  local names, fields, old = fair.names, {}, {}
  for first = 1, #names, 4000 do redis.call('HSET', fair.in_flight, unpack(names, first, math.min(first + 3999, #names))) end
  fair.names = nil
  for i, one in ipairs(fair.unnamed) do fields[i] = one[1] end
  if #fields == 0 then return end
  for i, value in ipairs(redis.call('HMGET', fair.in_flight, unpack(fields))) do
    if value == fair.unnamed[i][2] then old[#old + 1] = fields[i] end
  end
  if #old > 0 then redis.call('HDEL', fair.in_flight, unpack(old)) end
end

local function has_type(key, kind)
  if not key then error({err = 'ERR fairness: a key is missing'}) end
  local is = redis.call('TYPE', key).ok
  if is ~= 'none' and is ~= kind then error({err = 'WRONGTYPE ' .. key .. ' is a ' .. is .. ', not a ' .. kind}) end
  return is ~= 'none'
end

local function read_fairness(at, in_flight)
  local function take()
    local value = tonumber(ARGV[at])
    if not value then error({err = 'ERR fairness: missing or wrong arguments'}) end
    at = at + 1
    return value
  end
  fair.in_flight, fair.ended_runs, fair.dead = in_flight, KEYS[take()], KEYS[take()]
  for _ = 1, take() do
    local base, streams, topic = take(), take(), {window = take(), cap = take(), group = ARGV[at], counts = {}, streams = {}}
    at = at + 1
    topic.running, topic.left, topic.back = KEYS[base], {}, {}
    if topic.cap > 0 then has_type(topic.running, 'zset') end
    local side_keys = {}
    for i = 1, streams do
      local first = base + 3 * i - 2
      topic.streams[i] = {topic = topic, key = KEYS[first], waiting = KEYS[first + 1], ring = KEYS[first + 2]}
      if not KEYS[first + 2] then error({err = 'ERR fairness: a key is missing'}) end
      side_keys[2 * i - 1], side_keys[2 * i] = KEYS[first + 1], KEYS[first + 2]
    end
    -- Usually nothing is queued, which one command shows for all streams.
    local any = streams > 0 and redis.call('EXISTS', unpack(side_keys)) > 0
    for _, stream in ipairs(topic.streams) do
      if any then has_type(stream.ring, 'zset') end
      stream.some = any and has_type(stream.waiting, 'hash')
      if stream.some then has_type(stream.key, 'stream') end
      fair.of[stream.key] = stream
    end
    fair.topics[#fair.topics + 1] = topic
  end
  if at ~= #ARGV + 1 then error({err = 'ERR fairness: arguments too many or missing'}) end
end

local function field_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return ''
end

-- How many more messages fit into the stream's window.
local function capacity_of(stream)
  if stream.topic.window == 0 then return math.huge end
  if not stream.ready then
    local pending, groups = 0, redis.pcall('XINFO', 'GROUPS', stream.key)
    for i = 1, groups.err and 0 or #groups do
      local about = {}
      for j = 1, #groups[i], 2 do about[groups[i][j]] = groups[i][j + 1] end
      if about.name == stream.topic.group then pending = about.pending end
    end
    stream.ready = redis.call('XLEN', stream.key) - pending
  end
  return stream.topic.window - stream.ready
end

-- Number of messages queued for the stream: the fields of the hash, without the one per tenant that holds the numbers.
local function waiting_of(stream)
  if not stream.some then return 0 end
  return math.max(redis.call('HLEN', stream.waiting) - redis.call('ZCARD', stream.ring), 0)
end

-- `more`: messages of the tenant that are about to be published as well.
local function below_cap(topic, tenant, more)
  if topic.cap == 0 then return true end
  if not topic.counts[tenant] then
    topic.counts[tenant] = redis.call('ZLEXCOUNT', topic.running, '[' .. tenant .. ' ', '(' .. tenant .. '!')
  end
  return topic.counts[tenant] + (more or 0) < topic.cap
end

local function next_turn(stream)
  if not stream.last then
    stream.last = tonumber(redis.call('ZREVRANGEBYSCORE', stream.ring, '(+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2] or 0)
  end
  stream.last = stream.last + 1
  return stream.last
end

local function enter(stream, tenant, fields)
  local topic = stream.topic
  local id = redis.call('XADD', stream.key, '*', unpack(fields))
  if stream.ready then stream.ready = stream.ready + 1 end
  if topic.cap > 0 then
    redis.call('ZADD', topic.running, 0, tenant .. ' ' .. stream.key .. ' ' .. id)
    if topic.counts[tenant] then topic.counts[tenant] = topic.counts[tenant] + 1 end
  end
  return id
end

-- The numbers of a tenant's first queued message and of its next one, from the messages themselves: for a queue whose
-- record another writer has broken. Both are 0 if there are none.
local function recount(stream, tenant)
  local first, next_number
  for _, member in ipairs(redis.call('HKEYS', stream.waiting)) do
    local digits = string.sub(member, 1, #tenant + 1) == tenant .. '.' and string.match(member, '^%d+$', #tenant + 2)
    local at = digits and #digits < 16 and tonumber(digits)
    if at then first, next_number = math.min(first or at, at), math.max(next_number or 0, at + 1) end
  end
  return first or 0, next_number or 0
end

-- The same from the record of the queue. Third: whether the record was broken. `most`: the largest number of messages that
-- the queue can have.
local function parse_queue(stream, tenant, record, most)
  local first, next_number = string.match(record, '^(%d+) (%d+)$')
  first, next_number = tonumber(first), tonumber(next_number)
  if first and first <= next_number and next_number < 2 ^ 53 and next_number - first <= most then
    return first, next_number, false
  end
  first, next_number = recount(stream, tenant)
  return first, next_number, true
end

-- From now on `wait` writes nothing to the stream's queues; `write_queues` does, once for all messages. To be called before
-- anything reads the queues.
local function defer_queues(stream) stream.queues, stream.members = {}, {} end
local function write_queues(stream)
  if not stream.members or #stream.members == 0 then return end
  local members = stream.members
  for tenant, queue in pairs(stream.queues) do
    members[#members + 1] = tenant
    members[#members + 1] = string.format('%d %d', queue.first, queue.next)
  end
  for first = 1, #members, 4000 do
    redis.call('HSET', stream.waiting, unpack(members, first, math.min(first + 3999, #members)))
  end
  defer_queues(stream)
end

local function has_queue(stream, tenant)
  if stream.queues and stream.queues[tenant] then return true end
  return redis.call('HEXISTS', stream.waiting, tenant) == 1
end

-- `message`: as `cmsgpack` packs the in-flight field and the fields.
local function wait(stream, tenant, message)
  local queue = stream.queues and stream.queues[tenant]
  if not queue then
    local record = redis.call('HGET', stream.waiting, tenant)
    local first, next_number, broken = parse_queue(stream, tenant, record or '0 0', math.huge)
    if broken or not record then redis.call('ZADD', stream.ring, 'NX', next_turn(stream), tenant) end
    queue = {first = first, next = next_number}
    if stream.queues then stream.queues[tenant] = queue end
  end
  local member = string.format('%s.%d', tenant, queue.next)
  queue.next = queue.next + 1
  if stream.queues then
    stream.members[#stream.members + 1] = member
    stream.members[#stream.members + 1] = message
  else
    redis.call('HSET', stream.waiting, member, message, tenant, string.format('%d %d', queue.first, queue.next))
  end
  stream.some = true
  return member
end

-- The in-flight field and the fields of a queued message; nil if another writer has broken it.
local function parse_queued(text)
  local fine, queued = pcall(cmsgpack.unpack, text)
  if not (fine and type(queued) == 'table' and type(queued[1]) == 'string' and are_fields(queued[2])) then return end
  return queued[1], queued[2]
end

-- Records a message that no script can read, so that it can be removed. `tenant` and `id`: as far as its place tells them.
local function give_up_on(key, entry, tenant, id, text)
  fair.malformed = fair.malformed + 1
  add_dead_letter(fair.dead, {reason = 'malformed', message = 'the record in Redis is not a message', stream = clean(key),
    group = '', entry = clean(entry), consumer = '', delivery = 0, at = utc_now()}, {tenant = tenant, id = id}, text)
end

-- Whether a message can be published at once.
local function has_place(stream, tenant)
  stream.topic.touched = true
  return not stream.some and capacity_of(stream) > 0 and below_cap(stream.topic, tenant)
end

-- Publishes a message, or queues it for its tenant if other messages are queued or the window or cap is reached.
local function push(stream, in_flight_field, fields)
  local tenant, at = field_of(fields, 'tenant'), nil
  if has_place(stream, tenant) then
    at = stream.key .. ' ' .. enter(stream, tenant, fields)
  else
    at = stream.waiting .. ' ' .. wait(stream, tenant, cmsgpack.pack({in_flight_field, fields}))
  end
  if in_flight_field ~= '' then set_in_flight(in_flight_field, at) end
end

-- The same for a message without an in-flight field that its sender has packed, as it is queued. Returns where it is, a key
-- and an entry or "<tenant>.<number>", and whether it was queued; nothing if it is not packed so.
local function push_packed(stream, tenant, message)
  if not has_place(stream, tenant) then return stream.waiting, wait(stream, tenant, message), true end
  local _, fields = parse_queued(message)
  if not fields then return end
  return stream.key, enter(stream, tenant, fields), false
end

-- Whether each of these messages (a list of fields, or nil) is a step of a run that has ended. Returns a list.
local function are_of_ended_runs(messages, count)
  local runs = {}
  for i = 1, count do
    local fields = messages[i]
    runs[i] = fields and {run_in(field_of(fields, 'id')), field_of(fields, 'tenant')} or {}
  end
  return which_ended(fair.ended_runs, runs)
end

-- Moves queued messages to the stream, in this order. Returns how many; steps of ended runs are dropped instead.
local function move(stream, tenants, members)
  local named, texts, in_flight_fields, messages = {}, redis.call('HMGET', stream.waiting, unpack(members)), {}, {}
  for i, text in ipairs(texts) do
    if text then in_flight_fields[i], messages[i] = parse_queued(text) end
    in_flight_fields[i] = in_flight_fields[i] or ''
    if text and not messages[i] then give_up_on(stream.waiting, members[i], tenants[i], '', text) end
  end
  local dropped = are_of_ended_runs(messages, #members)
  if fair.in_flight then named = redis.call('HMGET', fair.in_flight, unpack(in_flight_fields)) end
  local entered, renamed, ended = 0, {}, {}
  for i, member in ipairs(members) do
    local in_flight_field, fields = in_flight_fields[i], messages[i]
    local ours = named[i] and named[i] == stream.waiting .. ' ' .. member
    if fields and dropped[i] then
      fair.dropped = fair.dropped + 1
      if ours then ended[#ended + 1] = in_flight_field end
    elseif fields then
      local id = enter(stream, tenants[i], fields)
      entered = entered + 1
      if ours then
        renamed[#renamed + 1] = in_flight_field
        renamed[#renamed + 1] = stream.key .. ' ' .. id
      end
    end
  end
  redis.call('HDEL', stream.waiting, unpack(members))
  if #renamed > 0 then redis.call('HSET', fair.in_flight, unpack(renamed)) end
  if #ended > 0 then redis.call('HDEL', fair.in_flight, unpack(ended)) end
  return entered
end

-- Dispatches up to `most` messages from a stream's queues, one per tenant in turn. Returns how many were examined and moved.
local function dispatch(stream, most)
  local ring, front, back, looked = {}, 1, 0, 0
  local tenants, members, planned = {}, {}, {}
  most = math.min(most, capacity_of(stream), 1000)  -- Lua unpacks no more than about 7,900
  if most <= 0 then return 0, 0 end
  local length = redis.call('HLEN', stream.waiting)
  for _, tenant in ipairs(redis.call('ZRANGEBYSCORE', stream.ring, '-inf', '(+inf', 'LIMIT', 0, most)) do
    local record = redis.call('HGET', stream.waiting, tenant) or ''
    local first, next_number = parse_queue(stream, tenant, record, length)
    if first < next_number then
      back = back + 1
      ring[back] = {tenant = tenant, first = first, next = next_number}
    else
      redis.call('HDEL', stream.waiting, tenant)
      redis.call('ZREM', stream.ring, tenant)
    end
  end
  local function keep(queue, turn)
    redis.call('HSET', stream.waiting, queue.tenant, string.format('%d %d', queue.first, queue.next))
    redis.call('ZADD', stream.ring, turn, queue.tenant)
  end
  while front <= back and looked < most do
    local queue = ring[front]
    local tenant = queue.tenant
    front, looked = front + 1, looked + 1
    if not below_cap(stream.topic, tenant, planned[tenant]) then
      keep(queue, '+inf')
    else
      planned[tenant] = (planned[tenant] or 0) + 1
      tenants[#tenants + 1] = tenant
      members[#members + 1] = tenant .. '.' .. string.format('%d', queue.first)
      queue.first = queue.first + 1
      if queue.first < queue.next then
        back = back + 1
        ring[back] = queue
      else
        redis.call('HDEL', stream.waiting, tenant)
        redis.call('ZREM', stream.ring, tenant)
      end
    end
  end
  for i = front, back do keep(ring[i], next_turn(stream)) end
  return looked, #members > 0 and move(stream, tenants, members) or 0
end

-- Refills a topic's streams, high first. One call in eight begins with low and one with normal, because they share the cap.
local function refill(topic, most)
  local some = false
  for _, stream in ipairs(topic.streams) do some = some or stream.some end
  if not some then return 0 end
  local begin, total = math.floor(tonumber(redis.call('TIME')[2]) % 8), 0
  begin = begin == 0 and #topic.streams - 1 or begin == 1 and 1 or 0
  for i = 0, #topic.streams - 1 do
    local stream = topic.streams[(begin + i) % #topic.streams + 1]
    local looked, entered = stream.some and 1 or 0, 0
    -- Repeat if all were dropped or at their cap: an empty stream has no completion that would continue.
    while most > 0 and looked > 0 and entered == 0 do
      looked, entered = dispatch(stream, most)
      most, total = most - looked, total + entered
    end
  end
  return total
end

local function rejoin_ring(stream, tenant)
  if stream.some and redis.call('ZSCORE', stream.ring, tenant) == 'inf' then
    redis.call('ZADD', stream.ring, next_turn(stream), tenant)
  end
end

-- Counts an entry as removed from its stream: its tenant is below its cap again and rejoins the ring before the next refill.
local function leave(stream, tenant, id)
  local topic = stream.topic
  topic.touched = true
  if topic.cap == 0 or not tenant then return end
  topic.left[#topic.left + 1] = tenant .. ' ' .. stream.key .. ' ' .. id
  if not topic.back[tenant] then
    topic.back[tenant], topic.back[#topic.back + 1] = true, tenant
  end
end

local function refill_touched(most)
  for _, topic in ipairs(fair.topics) do
    if #topic.left > 0 then
      redis.call('ZREM', topic.running, unpack(topic.left))
      for _, tenant in ipairs(topic.back) do
        topic.counts[tenant] = nil
        for _, stream in ipairs(topic.streams) do rejoin_ring(stream, tenant) end
      end
    end
    if topic.touched then refill(topic, most) end
  end
end
