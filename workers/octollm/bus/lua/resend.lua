#!lua flags=allow-oom
-- resend: put a step on its stream again, only if its latest message is nowhere any more.
--
-- KEYS[1] hash of live steps   KEYS[2] schedule   KEYS[3] stream to send to   KEYS[4..] streams a step's message may lie on
-- ARGV    live field, mode (look | send), fields, (name, value)*  (look: no fields)
-- Answers exists, missing (look) or sent (send). Look-up and send are one script, so that two sweepers send once.
local live, field, mode = KEYS[1], ARGV[1], ARGV[2]
local named = redis.call('HGET', live, field)
if named then
  local key, id = string.match(named, '^(%S+) (%S+)$')
  if key == KEYS[2] then
    if redis.call('ZSCORE', key, id) then return 'exists' end
  else
    for i = 3, #KEYS do
      if KEYS[i] == key and #redis.pcall('XRANGE', key, id, id) > 0 then return 'exists' end
    end
  end
end
if mode == 'look' then return 'missing' end
local fields = {}
for i = 1, 2 * tonumber(ARGV[3]) do fields[i] = ARGV[3 + i] end
local entry = redis.call('XADD', KEYS[3], '*', unpack(fields))
redis.call('HSET', live, field, KEYS[3] .. ' ' .. entry)
return 'sent'
