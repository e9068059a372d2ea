-- Puts a call in line unless it already is in line or leased.
-- ARGV: call id, priority, fairness key, due at (ms, 0: now)
-- Returns 1, or 0 when it was known.
local id, due_ms = ARGV[1], tonumber(ARGV[4])
if redis.call('HEXISTS', CALLS, id) == 1 then return 0 end
local ticket = {p = tonumber(ARGV[2]), f = ARGV[3]}
if due_ms > now_ms() then delay(id, ticket, due_ms) else put_in_line(id, ticket) end
wake()
return 1
