-- Forgets a finished call: acknowledged, deleted from the stream and unknown in one step.
-- ARGV: call id, token
-- Returns 1, or 0 when the lease is lost.
local id = ARGV[1]
local ticket = held(id, ARGV[2])
if not ticket then return 0 end
take_out(id, ticket)
redis.call('HDEL', CALLS, id)
return 1
