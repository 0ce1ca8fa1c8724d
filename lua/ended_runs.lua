-- Shared by cancel, claim, complete, promote, redrive, renew and republish; the loader inserts it at
-- `--@include ended_runs.lua`.
--
-- The sorted set of ended runs holds `<task>.<run> <tenant>` for each run that ended while steps of it were in flight; the
-- score is the time (s since 1970) until which it is kept. A step of such a run is never started, completed or renewed; it
-- is removed wherever it is found. The step's own tenant has to be named, so that no tenant can end another's run.

local function redis_time_s() return tonumber(redis.call('TIME')[1]) end

-- Adds a run for `ttl` seconds and tells all workers to stop its steps.
local function end_run(ended_runs, control, run, tenant, ttl)
  redis.call('ZADD', ended_runs, 'GT', redis_time_s() + ttl, run .. ' ' .. tenant)
  redis.call('PUBLISH', control, 'ended ' .. run)
end

-- `runs`: list of {run, tenant}, each field may be nil. Returns a list of booleans.
local function which_ended(ended_runs, runs)
  local ended, members, at = {}, {}, {}
  for i = 1, #runs do
    ended[i] = false
    if runs[i][1] then
      members[#members + 1] = runs[i][1] .. ' ' .. (runs[i][2] or '')
      at[#at + 1] = i
    end
  end
  local now
  for first = 1, #members, 1000 do
    local last = math.min(first + 999, #members)
    for i, kept_until in ipairs(redis.call('ZMSCORE', ended_runs, unpack(members, first, last))) do
      if kept_until then
        now = now or redis_time_s()
        ended[at[first + i - 1]] = tonumber(kept_until) > now
      end
    end
  end
  return ended
end

-- The run in a step's message id; nil if the id is no step's.
local function run_in(id)
  return string.match(id or '', '^(l%d+%-%w+%.%d+)%.[a-z][a-z0-9_-]*%.%d+%.%d+$')
end
