#!lua flags=allow-oom
-- publish_keys: replace the API keys that every reflex accepts, unless a later state of the table is published already.
-- With allow-oom: a revoked key must stop working although Redis is full.
--
-- KEYS[1] hash of the keys   KEYS[2] version   KEYS[3] number of the table's state
-- ARGV    number, version, (id, record)*
-- Returns the number that is published now. If it is higher than the given one, nothing was changed.
local number = tonumber(ARGV[1])
if not number or number < 1 or number > 2 ^ 53 or #ARGV < 2 or #ARGV % 2 == 1 then
  error({err = 'ERR publish_keys: missing or wrong arguments'})
end
local known = redis.pcall('GET', KEYS[3])
known = type(known) == 'string' and known:match('^%d+$') and tonumber(known) or 0
if known > number and known <= 2 ^ 53 then return known end
redis.call('DEL', unpack(KEYS))
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SET', KEYS[3], ARGV[1])
return number
