-- In front of every script: names for the keys (faas/queue/keys.py draws them) and the moves they share.
-- KEYS: calls, delayed, wake, the beginning of the streams' names, leases 0..2, turns 0..2
local CALLS, DELAYED, WAKE, STREAMS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local GROUP, CONSUMER = 'workers', 'faas'
local FIRST, LAST = 2, 0  -- priorities

local function stream_of(priority, app) return STREAMS .. priority .. ':' .. app end
local function leases_of(priority) return KEYS[5 + priority] end
local function turns_of(priority) return KEYS[8 + priority] end

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

-- An app's next turn is the last of the round.
local function line_up(priority, app)
  local last = redis.call('ZRANGE', turns_of(priority), -1, -1, 'WITHSCORES')
  redis.call('ZADD', turns_of(priority), (tonumber(last[2]) or 0) + 1, app)
end

local function put_in_line(id, ticket)
  ticket.e = redis.call('XADD', stream_of(ticket.p, ticket.f), '*', 'id', id)
  if not redis.call('ZSCORE', turns_of(ticket.p), ticket.f) then line_up(ticket.p, ticket.f) end
  keep(id, ticket)
end

local function delay(id, ticket, due_ms)
  redis.call('ZADD', DELAYED, due_ms, id)
  keep(id, ticket)
end

-- An entry out of its stream and of the group's pending list; the last one takes the stream along.
local function remove_entry(priority, app, entry)
  local stream = stream_of(priority, app)
  redis.call('XACK', stream, GROUP, entry)
  redis.call('XDEL', stream, entry)
  if redis.call('XLEN', stream) == 0 then
    redis.call('DEL', stream)
    redis.call('ZREM', turns_of(priority), app)
  end
end

-- Out of its stream and of the leases, or of the delayed ones; the ticket stays.
local function take_out(id, ticket)
  if ticket.e then
    remove_entry(ticket.p, ticket.f, ticket.e)
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
