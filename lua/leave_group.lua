#!lua flags=allow-oom
-- leave_group: delete this consumer from the group where it owns no entries. XGROUP DELCONSUMER would destroy them.
--
-- KEYS  streams      ARGV  group, consumer
-- Returns how many entries the consumer still owns on all streams; 0: it has been deleted everywhere.
local owned = 0
for _, key in ipairs(KEYS) do
  local pending = redis.pcall('XPENDING', key, ARGV[1], '-', '+', 1000, ARGV[2])
  if not pending.err then
    if #pending == 0 then redis.call('XGROUP', 'DELCONSUMER', key, ARGV[1], ARGV[2]) end
    owned = owned + #pending
  end
end
return owned
