#!lua flags=no-writes
-- ARGV: prefix, ids. Returns name, payload, options, created_ms of each, flat; false for each of an unknown one's.
local reply = {}
for i = 2, #ARGV do
  local v = call('HMGET', P .. 'f:' .. ARGV[i], 'n', 'p', 'o', 'c')
  for n = 1, 4 do
    reply[#reply + 1] = v[n]
  end
end
return reply
