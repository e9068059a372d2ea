-- Forgets a call wherever it is.
-- ARGV: call id
-- Returns 1, or 0 when it was not known.
local id = ARGV[1]
local ticket = ticket_of(id)
if not ticket then return 0 end
take_out(id, ticket)
redis.call('HDEL', CALLS, id)
return 1
