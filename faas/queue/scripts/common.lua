-- In front of every script: names for the keys (faas/queue/keys.py draws them) and the moves they share.
-- KEYS: calls, delayed, wake, stream 0..2, leases 0..2
local CALLS, DELAYED, WAKE = KEYS[1], KEYS[2], KEYS[3]
local GROUP, CONSUMER = 'workers', 'faas'
local FIRST, LAST = 2, 0  -- priorities

local function stream_of(priority) return KEYS[4 + priority] end
local function leases_of(priority) return KEYS[7 + priority] end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function ticket_of(id)
  local text = redis.call('HGET', CALLS, id)
  return text and cjson.decode(text)
end

local function keep(id, ticket) redis.call('HSET', CALLS, id, cjson.encode(ticket)) end

-- The ticket when this token still holds the call, else nil.
local function held(id, token)
  local ticket = ticket_of(id)
  return ticket and ticket.t == token and ticket or nil
end

-- One entry is enough: whoever blocks reads on from the last one it saw.
local function wake() redis.call('XADD', WAKE, 'MAXLEN', 1, '*', 'w', '1') end

local function put_in_line(id, ticket)
  ticket.e = redis.call('XADD', stream_of(ticket.p), '*', 'id', id)
  keep(id, ticket)
end

local function delay(id, ticket, due_ms)
  redis.call('ZADD', DELAYED, due_ms, id)
  keep(id, ticket)
end

-- Out of its stream, of the group's pending list and of the leases; the ticket stays.
local function take_out(id, ticket)
  if ticket.e then
    redis.call('XACK', stream_of(ticket.p), GROUP, ticket.e)
    redis.call('XDEL', stream_of(ticket.p), ticket.e)
    redis.call('ZREM', leases_of(ticket.p), id)
  else
    redis.call('ZREM', DELAYED, id)
  end
  ticket.e, ticket.t, ticket.o = nil, nil, nil
end

-- It stays pending in its place; from now on anybody may take it.
local function give_back(id, ticket, now)
  redis.call('ZADD', leases_of(ticket.p), now, id)
  ticket.t, ticket.o = nil, nil
  keep(id, ticket)
end
