#!lua
-- open_task: record a task as open for its tenant and its key, unless one of them has as many open tasks as its quota allows.
-- Deliberately without allow-oom: when Redis is full, nothing new is started.
--
-- KEYS[1] open tasks   KEYS[2] their owners   KEYS[3] idempotency key, if the task has one
-- ARGV    task, then per owner: its name and how many open tasks it may have
-- Returns {opened, 0, 0} | {known, 0, 0} | {full, number of the owner, its open tasks}
-- A task that is recorded stays as it is. A repeat, whose idempotency key exists, is let through without a record: it will be
-- answered with the first task.
local open_tasks, owners_key, task = KEYS[1], KEYS[2], ARGV[1]
if not task or #ARGV < 3 or #ARGV % 2 ~= 1 then error({err = 'ERR open_task: missing or wrong arguments'}) end
if redis.call('HEXISTS', open_tasks, task) == 1 then return {'known', 0, 0} end
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then return {'known', 0, 0} end
local record = {redis.call('TIME')[1]}
for i = 2, #ARGV, 2 do
  local owner, most = ARGV[i], tonumber(ARGV[i + 1])
  if not most then error({err = 'ERR open_task: a limit is not a number'}) end
  local open = redis.call('ZLEXCOUNT', owners_key, '[' .. owner .. ' ', '(' .. owner .. '!')
  if open >= most then return {'full', i / 2, open} end
  record[#record + 1] = owner
end
redis.call('HSET', open_tasks, task, table.concat(record, ' '))
for i = 2, #record do redis.call('ZADD', owners_key, 0, record[i] .. ' ' .. task) end
return {'opened', 0, 0}
