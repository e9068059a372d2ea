-- Forgets finished calls: each is acknowledged, deleted from its stream and unknown in one step.
-- ARGV: a call id and a token for each
-- Returns for each 1, or 0 when the lease is lost.
local forgotten = {}
for index = 1, #ARGV, 2 do
  local id = ARGV[index]
  local ticket = held(id, ARGV[index + 1])
  if ticket then
    take_out(id, ticket)
    redis.call('HDEL', CALLS, id)
  end
  forgotten[#forgotten + 1] = ticket and 1 or 0
end
return forgotten
