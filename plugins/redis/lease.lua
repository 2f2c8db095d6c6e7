-- A dispatcher shows that it lives, and hears what it has to know: whether it was evicted, and what was cancelled.
-- ARGV: prefix, dispatcher, turn's number, tag, lease_ms, '1' if it reports ('' if it only claims or sweeps), report,
-- slots, cancels at most
-- Returns {evicted, task, …}. Repeated under one tag it answers the same; a new tag says that the answer arrived.
local D, tag = ARGV[2], ARGV[4]
if is_stale(D, ARGV[3]) then
  return { 0 }
end
local key = P .. 'evicted:' .. D
local mark = call('GET', key)
local evicted = 0
if mark == '' or mark == tag then
  evicted = 1
  call('SET', key, tag, 'EX', 86400)
elseif mark then
  call('DEL', key)
end
if ARGV[6] == '1' then
  call('ZADD', P .. 'dispatchers', now + ARGV[5], D)
  call('HSET', P .. 'fleet:' .. D, 'r', ARGV[7], 'n', ARGV[8])
else
  call('ZADD', P .. 'dispatchers', 'NX', now + ARGV[5], D) -- so that no claim is ever without a lease
end
local reply = { evicted }
for _, id in ipairs(call('SRANDMEMBER', P .. 'cancels:' .. D, ARGV[9])) do
  reply[#reply + 1] = id
end
return reply
