-- Shared by claim and by fairness.lua; the loader inserts it at `--@include dead_letters.lua`.
-- Writes dead letters, and recognises what another writer has broken: one bad record must not stop a script for all others.

-- Makes text fit for JSON and for a field with a maximum length.
local function clean(text) return (string.gsub(string.sub(text or '', 1, 300), '[^\32-\126]', '?')) end

-- The time of Redis in UTC as RFC 3339 with milliseconds, by the usual conversion of days to a date.
local function utc_now()
  local now, floor = redis.call('TIME'), math.floor
  local seconds = tonumber(now[1])
  local days = floor(seconds / 86400) + 719468
  local era = floor(days / 146097)
  local day_of_era = days - era * 146097
  local year = floor((day_of_era - floor(day_of_era / 1460) + floor(day_of_era / 36524) - floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  local rest = seconds % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, floor(rest / 3600), floor(rest / 60) % 60,
    rest % 60, floor(now[2] / 1000))
end

-- `about`: reason, message, stream, group, entry, consumer, delivery and at of the dead letter. `names`: the fields of the
-- message by name, as far as they are known. `original`: what was given up on.
local function add_dead_letter(dead_key, about, names, original)
  about.stage, about.bytes = 'after_admission', #original
  about.type, about.id, about.tenant = clean(names.type), clean(names.id), clean(names.tenant)
  redis.call('XADD', dead_key, '*', 'type', 'dead.letter.v1', 'id', about.id, 'tenant', about.tenant,
    'traceparent', clean(names.traceparent), 'body', cjson.encode(about), 'original', original)
end

-- Whether this is a list of names and values, as XADD takes it.
local function are_fields(list)
  if type(list) ~= 'table' or #list == 0 or #list % 2 == 1 or #list > 7000 then return false end
  for i = 1, #list do
    if type(list[i]) ~= 'string' then return false end
  end
  return true
end
