-- How full the queue is.
-- ARGV: none
-- Returns {waiting, delayed, leased, age of the oldest that waits (ms)}; looks at each app with calls in line once.
local now = now_ms()
local beyond = '(' .. now
local delayed = redis.call('ZCOUNT', DELAYED, beyond, '+inf')
local leased, oldest = 0, now

local function seen_at(instant) if instant and instant < oldest then oldest = instant end end
local function first_score(key) return tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) end

-- The group's reply is a flat list of names and values.
local function last_delivered(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups.err and {} or groups) do
    for index = 1, #group, 2 do
      if group[index] == 'last-delivered-id' then return group[index + 1] end
    end
  end
  return '0-0'
end

seen_at(first_score(DELAYED))
for priority = FIRST, LAST, -1 do
  leased = leased + redis.call('ZCOUNT', leases_of(priority), beyond, '+inf')
  seen_at(first_score(leases_of(priority)))
  for _, app in ipairs(redis.call('ZRANGE', turns_of(priority), 0, -1)) do
    local stream = stream_of(priority, app)
    local entry = redis.call('XRANGE', stream, '(' .. last_delivered(stream), '+', 'COUNT', 1)[1]
    if entry then seen_at(tonumber(string.match(entry[1], '^(%d+)'))) end
  end
end
return {redis.call('HLEN', CALLS) - delayed - leased, delayed, leased, now - oldest}
