-- Shared by complete, renew and release (their loader puts it where they say `--@include lease.lua`).
-- lease_status(key, group, consumer, id, delivery): does this consumer still hold this entry at this delivery count?
--   'valid'   yes
--   'stale'  another consumer holds it, or this one got it again later: the lease was lost
--   'gone'   it is not pending any more, or stream or group are missing
local function lease_status(key, group, consumer, id, delivery)
  local pending = redis.pcall('XPENDING', key, group, id, id, 1)
  if pending.err or #pending == 0 then return 'gone' end
  local holder = pending[1]
  if holder[2] ~= consumer or holder[4] ~= delivery then return 'stale' end
  return 'valid'
end

local function number(text, what)
  local value = tonumber(text)
  if not value then error({err = 'ERR argument is not a number: ' .. what}) end
  return value
end
