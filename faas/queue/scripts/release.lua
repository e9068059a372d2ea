-- Gives a call back: at once it keeps its place, later it gets in line when it is due.
-- ARGV: call id, token, due at (ms, 0: now)
-- Returns 1, or 0 when the lease is lost.
local id, due_ms = ARGV[1], tonumber(ARGV[3])
local ticket = held(id, ARGV[2])
if not ticket then return 0 end
local now = now_ms()
if due_ms > now then
  take_out(id, ticket)
  delay(id, ticket, due_ms)
else
  give_back(id, ticket, now)
end
wake()
return 1
