#!lua flags=allow-oom
-- publish_kinds: replace the schemas of all kinds of tasks, with their version.
-- With allow-oom: they are small, and without them every input is admitted.
--
-- KEYS[1] hash of the schemas   KEYS[2] version
-- ARGV    version, (kind, JSON Schema)*
if #ARGV < 1 or #ARGV % 2 == 0 then error({err = 'ERR publish_kinds: missing arguments'}) end
redis.call('DEL', unpack(KEYS))
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[2], ARGV[1])
