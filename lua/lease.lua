-- Shared by cancel, complete, promote, prune, redrive, release, renew and republish; the loader inserts it at
-- `--@include lease.lua`.
-- lease_status(key, group, consumer, id, delivery): whether this consumer holds the lease of an entry at this delivery.
--   'valid'  yes
--   'stale'  the lease was lost: another consumer holds it, or this one got the entry again later
--   'gone'   the entry is no longer pending, or the stream or group does not exist
local function lease_status(key, group, consumer, id, delivery)
  local pending = redis.pcall('XPENDING', key, group, id, id, 1)
  if pending.err or #pending == 0 then return 'gone' end
  local holder = pending[1]
  if holder[2] ~= consumer or holder[4] ~= delivery then return 'stale' end
  return 'valid'
end

-- number(text, what, most): the argument as a whole number from 0 to most, by default 2^53. Nothing else reaches a command:
-- Redis would refuse it after the first write. Excludes NaN, which equals nothing.
local function number(text, what, most)
  local value = tonumber(text)
  if not (value and value >= 0 and value <= (most or 2 ^ 53) and value % 1 == 0) then
    error({err = 'ERR argument is not a number in range: ' .. what})
  end
  return value
end
local MAX_TTL_S = 2 ^ 31 - 1
