#!lua flags=allow-oom
-- evict: delete the statuses of finished tasks before their time, because Redis is running full. The API has them.
--
-- KEYS    statuses of tasks of one lane
-- Returns how many were deleted. The status of a task that runs again meanwhile is kept: it is live.
-- So is one that is no hash: it is the status of an admission.
local ended = {succeeded = true, failed = true, rejected = true, cancelled = true, expired = true}
local evicted = 0
for _, key in ipairs(KEYS) do
  local state = redis.pcall('HGET', key, 'state')
  if type(state) == 'string' and ended[state] then evicted = evicted + redis.call('UNLINK', key) end
end
return evicted
