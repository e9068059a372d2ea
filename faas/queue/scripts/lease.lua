-- Takes due calls: higher priority first; inside one, first those whose lease ran out, then apps in turn, a call each.
-- ARGV: owner, token, most calls, lease (ms), most delayed or expired calls to look at in one go
-- Returns {call ids, ms until the next call may be due (-1: none is delayed or leased), last id of wake}.
local owner, token, wanted, at_once = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[5]
local now = now_ms()
local until_ms = now + tonumber(ARGV[4])
local taken = {}

local function take(id, ticket)
  redis.call('ZADD', leases_of(ticket.p), until_ms, id)
  ticket.t, ticket.o = token, owner
  keep(id, ticket)
  taken[#taken + 1] = id
end

-- A new stream has no group yet; it starts before the first entry.
local function read_line(stream, count)
  local command = {'XREADGROUP', 'GROUP', GROUP, CONSUMER, 'COUNT', count, 'STREAMS', stream, '>'}
  local reply = redis.pcall(unpack(command))
  if reply and reply.err then
    if not string.find(reply.err, 'NOGROUP', 1, true) then return reply end
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0')
    reply = redis.call(unpack(command))
  end
  return reply and reply[1] and reply[1][2] or {}
end

-- Calls that anybody may take again, in the order of their places in the stream.
local function expired(priority)
  local leases, found = leases_of(priority), {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, at_once)) do
    local ticket = ticket_of(id)
    if ticket then
      local ms, sequence = string.match(ticket.e, '^(%d+)-(%d+)$')
      found[#found + 1] = {id = id, ticket = ticket, ms = tonumber(ms), sequence = tonumber(sequence)}
    else
      redis.call('ZREM', leases, id)
    end
  end
  table.sort(found, function(a, b) return a.ms < b.ms or (a.ms == b.ms and a.sequence < b.sequence) end)
  return found
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, '-inf', now, 'LIMIT', 0, at_once)) do
  redis.call('ZREM', DELAYED, id)
  local ticket = ticket_of(id)
  if ticket then put_in_line(id, ticket) end
end

-- Calls of the app whose turn it is; several at once when no other has calls in line.
local function take_turn(priority, app, room)
  local stream, turns = stream_of(priority, app), turns_of(priority)
  local entries = read_line(stream, redis.call('ZCARD', turns) > 1 and 1 or room)
  if entries.err then return entries end
  local last = entries[#entries]
  if last and #redis.call('XRANGE', stream, '(' .. last[1], '+', 'COUNT', 1) > 0 then
    line_up(priority, app)
  else
    redis.call('ZREM', turns, app)
  end
  for _, entry in ipairs(entries) do
    local id = entry[2][2]
    local ticket = ticket_of(id)
    if ticket and ticket.e == entry[1] then
      take(id, ticket)
    else  -- nobody knows it any more
      remove_entry(priority, app, entry[1])
    end
  end
end

for priority = FIRST, LAST, -1 do
  if #taken < wanted then
    for _, free in ipairs(expired(priority)) do
      if #taken == wanted then break end
      take(free.id, free.ticket)
    end
  end
  while #taken < wanted do
    local app = redis.call('ZRANGE', turns_of(priority), 0, 0)[1]
    if not app then break end
    local failed = take_turn(priority, app, wanted - #taken)
    if failed then return failed end
  end
end

local next_ms = -1
for _, key in ipairs({DELAYED, leases_of(0), leases_of(1), leases_of(2)}) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] then
    local in_ms = math.max(tonumber(first[2]) - now, 0)
    if next_ms < 0 or in_ms < next_ms then next_ms = in_ms end
  end
end
local last = redis.call('XREVRANGE', WAKE, '+', '-', 'COUNT', 1)
return {taken, next_ms, last[1] and last[1][1] or '0-0'}
