-- Puts calls in line, each unless it already is in line or leased.
-- ARGV: call id, priority, fairness key, due at (ms, 0: now) for each
-- Returns for each 1, or 0 when it was known.
local now = now_ms()
local added, is_any = {}, false
for index = 1, #ARGV, 4 do
  local id, due_ms = ARGV[index], tonumber(ARGV[index + 3])
  local is_new = redis.call('HEXISTS', CALLS, id) == 0
  if is_new then
    local ticket = {p = tonumber(ARGV[index + 1]), f = ARGV[index + 2]}
    if due_ms > now then delay(id, ticket, due_ms) else put_in_line(id, ticket) end
    is_any = true
  end
  added[#added + 1] = is_new and 1 or 0
end
if is_any then wake() end
return added
