#!lua flags=allow-oom
-- grant_quota: take tokens from the buckets that limit how fast tenants and keys may send.
--
-- KEYS    one bucket each
-- ARGV    per bucket: rate in tokens/s, burst, tokens given back, least, most
-- Returns per bucket {granted, left, us}: nothing is granted unless `least` tokens are there, else up to `most`; `left` are
-- the tokens that stay; `us` is the time in us until `least` more are there. `least` and `most` 0 only ask.
-- Tokens that were granted and not spent may be given back.
--
-- The value of a bucket is the time (us since 1970) at which it is full again: the generic cell rate algorithm. A bucket
-- that is full has no key, so idle tenants cost nothing. A time further away than an empty bucket needs is cut to that. So
-- a higher rate applies at once, and neither a clock that was set back nor a broken value locks anyone out.
-- A process spends what it was granted without asking again (docs/quotas.md).
local PER_BUCKET = 5
if #KEYS == 0 or #ARGV ~= PER_BUCKET * #KEYS then error({err = 'ERR grant_quota: arguments do not fit the keys'}) end
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]

local function grant(key, rate, burst, back, least, most)
  if not (rate and rate > 0 and burst and burst >= 1 and back and back >= 0 and least and least >= 0 and most and most >= 0) then
    return {err = 'ERR grant_quota: rate, burst or a number of tokens is not within its bounds'}
  end
  local per_token = 1000000 / rate
  local known = redis.pcall('GET', key)
  local full_at = type(known) == 'string' and tonumber(known) or 0
  -- Written so that NaN counts as nothing.
  if not (full_at > now) then full_at = now end
  local cut = full_at > now + burst * per_token
  full_at = math.max(math.min(full_at, now + burst * per_token) - back * per_token, now)
  local left = burst - (full_at - now) / per_token
  local granted = 0
  if least <= left then granted = math.min(most, math.floor(left)) end
  if granted > 0 or back > 0 or cut then
    full_at = math.ceil(full_at + granted * per_token)
    if full_at > now then
      redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
    else
      redis.call('DEL', key)
    end
    left = left - granted
  end
  return {granted, math.max(math.floor(left), 0), math.ceil(math.max(least - left, 0) * per_token)}
end

local answers = {}
for i, key in ipairs(KEYS) do
  local at = PER_BUCKET * (i - 1)
  local numbers = {}
  for j = 1, PER_BUCKET do numbers[j] = tonumber(ARGV[at + j]) end
  answers[i] = grant(key, unpack(numbers, 1, PER_BUCKET))
end
return answers
