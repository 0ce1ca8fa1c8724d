-- Shared by close_tasks, complete, open_task and prune_open_tasks; the loader inserts it at `--@include open_tasks.lua`.
--
-- Open tasks are those that were accepted and have not ended. They are only recorded for tenants and keys with a quota of them,
-- in two keys of the task's lane:
--   open-tasks          hash: <task> -> "<time of its opening, s since 1970> <owner> ..."
--   open-tasks:owners   sorted set of "<owner> <task>" with score 0, which counts the tasks of an owner
-- A count is derived from the members instead of stored, so that it cannot drift.

-- Removes tasks that are recorded. Returns how many were.
local function close_tasks(open_tasks, owners_key, tasks)
  local closed = 0
  for _, task in ipairs(tasks) do
    local record = redis.call('HGET', open_tasks, task)
    if record then
      redis.call('HDEL', open_tasks, task)
      for owner in string.gmatch(string.match(record, '^%S+(.*)$') or '', '%S+') do
        redis.call('ZREM', owners_key, owner .. ' ' .. task)
      end
      closed = closed + 1
    end
  end
  return closed
end
