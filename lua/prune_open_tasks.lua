#!lua flags=allow-oom
-- prune_open_tasks: remove the records of open tasks that have ended or no longer exist. `complete` does that when a task ends; this
-- finds the tasks whose end it could not see, because a status or a message was lost or a process died in between.
--
-- KEYS[1] open tasks   KEYS[2] their owners   KEYS[3..] every place where the message of an accepted task may be: streams, queues
-- ARGV    cursor, approximate number of records to examine, start of the names of statuses, seconds for which a record without a
--         status is kept: the task is about to be stored; the same for a task that Postgres does not have and whose message
--         is gone
-- Returns {next cursor, removed}.
--@include open_tasks.lua
local open_tasks, owners_key, statuses = KEYS[1], KEYS[2], ARGV[3]
local count, unstored_s, unread_s = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
if not (statuses and count and unstored_s and unread_s) then
  error({err = 'ERR prune_open_tasks: missing or wrong arguments'})
end
local now, messages = tonumber(redis.call('TIME')[1]), 0
for i = 3, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  messages = messages + (is == 'stream' and redis.call('XLEN', KEYS[i]) or is == 'hash' and redis.call('HLEN', KEYS[i]) or 0)
end
local live = {accepted = true, running = true}
local function is_open(task, since)
  local key = statuses .. task
  local known = redis.pcall('HMGET', key, 'state', 'stored')
  -- The status of an admission may be no hash.
  local state, stored = known[1], known[2]
  if known.err then state, stored = 'accepted', false end
  if not state then return now - since < unstored_s and redis.call('EXISTS', key) == 0 end
  if not live[state] then return false end
  return stored == '1' or messages > 0 or now - since < unread_s
end

local page, gone = redis.call('HSCAN', open_tasks, ARGV[1], 'COUNT', count), {}
for i = 1, #page[2], 2 do
  local since = tonumber(string.match(page[2][i + 1], '^%S+') or '') or 0
  if not is_open(page[2][i], since) then gone[#gone + 1] = page[2][i] end
end
return {page[1], close_tasks(open_tasks, owners_key, gone)}
