-- Holds leases longer.
-- ARGV: lease (ms), then a call id and a token for each lease
-- Returns the ids of the leases that are lost.
local until_ms = now_ms() + tonumber(ARGV[1])
local lost = {}
for index = 2, #ARGV, 2 do
  local id = ARGV[index]
  local ticket = held(id, ARGV[index + 1])
  if ticket then
    redis.call('ZADD', leases_of(ticket.p), until_ms, id)
  else
    lost[#lost + 1] = id
  end
end
return lost
