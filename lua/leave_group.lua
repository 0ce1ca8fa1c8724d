#!lua flags=allow-oom
-- leave_group: delete this consumer where it owns nothing. XGROUP DELCONSUMER would destroy what it still owns.
--
-- KEYS  streams      ARGV  group, consumer
-- Answers how many entries it still owns over all streams; 0 means it is gone everywhere.
local owned = 0
for _, key in ipairs(KEYS) do
  local pending = redis.pcall('XPENDING', key, ARGV[1], '-', '+', 1000, ARGV[2])
  if not pending.err then
    if #pending == 0 then redis.call('XGROUP', 'DELCONSUMER', key, ARGV[1], ARGV[2]) end
    owned = owned + #pending
  end
end
return owned
