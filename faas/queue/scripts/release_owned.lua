-- Gives back every lease whose owner begins with a prefix.
-- ARGV: prefix
-- Returns how many.
local prefix, now, count = ARGV[1], now_ms(), 0
for priority = FIRST, LAST, -1 do
  for _, id in ipairs(redis.call('ZRANGE', leases_of(priority), 0, -1)) do
    local ticket = ticket_of(id)
    if ticket and ticket.t and string.sub(ticket.o, 1, #prefix) == prefix then
      give_back(id, ticket, now)
      count = count + 1
    end
  end
end
if count > 0 then wake() end
return count
