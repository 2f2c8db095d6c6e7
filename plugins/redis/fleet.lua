#!lua flags=no-writes
-- What is queued, and the dispatchers whose lease is valid.
-- ARGV: prefix, '1' for the reports too. Returns {queued, delayed, dispatchers, slots, ended, report …}.
local names = call('ZRANGE', P .. 'dispatchers', '(' .. now, '+inf', 'BYSCORE')
local reply = { queued(), call('ZCARD', P .. 'delayed'), #names, 0, tonumber(call('GET', P .. 'concluded') or 0) }
for _, name in ipairs(names) do
  local v = call('HMGET', P .. 'fleet:' .. name, 'n', ARGV[2] == '1' and 'r' or 'n')
  reply[4] = reply[4] + tonumber(v[1] or 0)
  if ARGV[2] == '1' and v[2] then
    reply[#reply + 1] = v[2]
  end
end
return reply
